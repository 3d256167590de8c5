//! Wrong programs do not compile: each file of `tests/misuse/` fails, for its own reason.
//!
//! A file begins with `// error: CODE`, the only error code that the compiler may give, and
//! `// names: WORD`, what its message must speak of; or with `// compiles`, the control, which
//! proves that the others do not fail for want of a library.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn wrong_programs_do_not_compile() {
    let compiler = Compiler::beside_this_test();
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new("tests/misuse"))
        .expect("the programs stand beside this file")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    let mut wrong = Vec::new();
    let mut controls = 0;
    for file in &files {
        let source = fs::read_to_string(file).expect("a program is readable text");
        let outcome = compiler.compile(file);
        if source.starts_with("// compiles\n") {
            controls += 1;
            if !outcome.compiled {
                wrong.push(format!("{} must compile:\n{}", file.display(), outcome.messages));
            }
            continue;
        }
        let code = head(&source, 0, "// error: ");
        let names = head(&source, 1, "// names: ");
        if outcome.compiled {
            wrong.push(format!("{} compiles", file.display()));
        } else if outcome.codes() != BTreeSet::from([code]) || !outcome.messages.contains(names) {
            let messages = &outcome.messages;
            wrong.push(format!("{}: not {code} of {names} but:\n{messages}", file.display()));
        }
    }
    assert!(controls > 0 && files.len() > controls, "programs of both kinds are there");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn head<'a>(source: &'a str, line: usize, label: &str) -> &'a str {
    let line = source.lines().nth(line).unwrap_or_default();
    line.strip_prefix(label).unwrap_or_else(|| panic!("`{line}` must begin with `{label}`"))
}

/// The compiler with the libraries that this test itself was built with.
struct Compiler {
    dependencies: PathBuf,
    out: PathBuf,
}

struct Outcome {
    compiled: bool,
    messages: String,
}

impl Compiler {
    fn beside_this_test() -> Self {
        let test = std::env::current_exe().expect("a running test is a file");
        let dependencies = test.parent().expect("a file has a folder").to_path_buf();
        Self { dependencies, out: PathBuf::from(env!("CARGO_TARGET_TMPDIR")) }
    }

    fn compile(&self, program: &Path) -> Outcome {
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition", "2024", "--crate-type", "bin", "--emit", "metadata"])
            .args(["--cap-lints", "allow"])
            .arg("--out-dir")
            .arg(&self.out)
            .arg("-L")
            .arg(assigned("dependency", &self.dependencies))
            .arg("--extern")
            .arg(assigned("firstkey", &self.newest("libfirstkey-")))
            .arg("--extern")
            .arg(assigned("serde", &self.newest("libserde-")))
            .arg(program)
            .output()
            .expect("the compiler that built this test is there");
        Outcome {
            compiled: output.status.success(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The library as it was built last: older builds stay beside it.
    fn newest(&self, name_start: &str) -> PathBuf {
        fs::read_dir(&self.dependencies)
            .expect("the folder of this test can be read")
            .map(|entry| entry.expect("the folder can be read"))
            .filter(|entry| {
                entry.file_name().to_string_lossy().starts_with(name_start)
                    && entry.path().extension().is_some_and(|extension| extension == "rlib")
            })
            .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
            .expect("the library was built before its test")
            .path()
    }
}

impl Outcome {
    /// The codes of all errors; an error without a code counts as an empty one.
    fn codes(&self) -> BTreeSet<&str> {
        self.messages
            .lines()
            .filter(|line| !line.starts_with("error: aborting due to"))
            .filter_map(|line| line.strip_prefix("error"))
            .map(|rest| {
                let code = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                code.map_or("", |(code, _)| code)
            })
            .collect()
    }
}

fn assigned(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("{name}="));
    argument.push(path);
    argument
}
