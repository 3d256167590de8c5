//! Pages of text as PDF (ISO 32000-1): the same lines, where a printer takes no plain text.
//!
//! A page is as wide as A4 and as high as Letter, so that it comes whole out of a printer with
//! either. The typefaces are Courier's, which every reader has: nothing is embedded. What a person
//! reads back from paper is indented by four blanks, and stands large and bold; the lines above
//! and below it are empty.

use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};
use zeroize::Zeroizing;

/// Lines of a page.
pub(super) const PAGE_LINES: usize = 66;
/// What is indented by so much, and no more, is large.
pub(super) const LARGE: &str = "    ";

/// In points, as everything here: of A4 and of Letter the less.
const PAGE: Rect = Rect { x1: 0.0, y1: 0.0, x2: 595.0, y2: 792.0 };
/// 80 columns of usual letters, 6 points each, stand in the middle.
const LEFT: f32 = 57.5;
/// Where the first line stands.
const TOP: f32 = 744.0;
/// From line to line: the last one stands as far from the edge as the first.
const PITCH: f32 = 10.7;
/// A usual letter: 6 points wide.
const USUAL: (Name<'static>, f32) = (Name(b"F1"), 10.0);
/// A large one: 9.6 points wide, of which 50 stand beside each other.
const BOLD: (Name<'static>, f32) = (Name(b"F2"), 16.0);

/// More than the longest line takes, with what places it; and than a page without its lines.
const LINE_LEN_MAX: usize = 80 * 2 + 64;
const HEAD_LEN_MAX: usize = 1_024;

/// Draws pages of printable ASCII; each ends with a form feed, or after [`PAGE_LINES`].
///
/// Wiped on drop. What the writer held in between is wiped when it is freed, as all memory of the
/// process is; it has its room from the beginning, so that it is never copied to get more.
#[must_use]
pub fn pdf(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let pages: Vec<Vec<&[u8]>> = text
        .split(|octet| *octet == b'\x0c')
        .map(|page| page.strip_suffix(b"\n").unwrap_or(page))
        .filter(|page| !page.is_empty())
        .flat_map(|page| {
            let lines: Vec<&[u8]> = page.split(|octet| *octet == b'\n').collect();
            lines.chunks(PAGE_LINES).map(<[&[u8]]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    let page_len_max = HEAD_LEN_MAX + PAGE_LINES * LINE_LEN_MAX;
    let mut pdf = Pdf::with_capacity(HEAD_LEN_MAX + pages.len() * page_len_max);
    let mut ids = (1..).map(Ref::new);
    let mut id = || ids.next().expect("there are more numbers than pages");
    let (catalog, tree, usual, bold) = (id(), id(), id(), id());
    pdf.catalog(catalog).pages(tree);
    for (id, name) in [(usual, Name(b"Courier")), (bold, Name(b"Courier-Bold"))] {
        pdf.type1_font(id).base_font(name);
    }
    let placed: Vec<(Ref, Ref)> = pages.iter().map(|_| (id(), id())).collect();
    let count = i32::try_from(placed.len()).unwrap_or(i32::MAX);
    pdf.pages(tree).kids(placed.iter().map(|(page, _)| *page)).count(count);
    for ((id, content), lines) in placed.into_iter().zip(pages) {
        let mut page = pdf.page(id);
        page.media_box(PAGE).parent(tree).contents(content);
        page.resources().fonts().pair(USUAL.0, usual).pair(BOLD.0, bold);
        page.finish();
        let drawn = Zeroizing::new(drawn(&lines, page_len_max));
        pdf.stream(content, &drawn);
    }
    Zeroizing::new(pdf.finish())
}

/// The lines of a page, each at its place.
fn drawn(lines: &[&[u8]], len_max: usize) -> Vec<u8> {
    let mut content = Content::with_capacity(len_max);
    let mut baseline = TOP;
    for line in lines {
        let ((font, size), text) = of_size(line);
        if !text.is_empty() {
            content.begin_text().set_font(font, size).next_line(LEFT, baseline);
            content.show(Str(text)).end_text();
        }
        baseline -= PITCH;
    }
    content.finish().into_vec()
}

/// How large a line is, and what is drawn of it.
fn of_size(line: &[u8]) -> ((Name<'static>, f32), &[u8]) {
    match line.strip_prefix(LARGE.as_bytes()) {
        Some(text) if !text.starts_with(b" ") => (BOLD, text),
        Some(_) | None => (USUAL, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader shows of a stream: the strings between brackets, line by line.
    fn shown(pdf: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(pdf);
        let strings = text.lines().filter_map(|line| line.strip_suffix(" Tj"));
        strings.map(|line| line.trim_matches(['(', ')']).to_owned()).collect()
    }

    #[test]
    fn all_lines_are_drawn_and_what_is_read_back_is_large() {
        let drawn = pdf(b"a line\n\n    row 1     0011\n\n     far in\n\x0c");
        assert_eq!(shown(&drawn), ["a line", "row 1     0011", "     far in"]);
        let text = String::from_utf8_lossy(&drawn);
        assert_eq!((text.matches("/F2 16 Tf").count(), text.matches("/F1 10 Tf").count()), (1, 2));
        assert!(text.starts_with("%PDF-1.") && text.trim_end().ends_with("%%EOF"));
    }

    #[test]
    fn what_is_longer_than_a_page_goes_on_on_another() {
        let script = "a line\n".repeat(100) + "\x0c";
        let drawn = pdf(script.as_bytes());
        assert!(String::from_utf8_lossy(&drawn).contains("/Count 2"));
        assert_eq!(shown(&drawn).len(), 100);
    }

    #[test]
    fn room_is_enough_for_the_longest_page() {
        let page = "(".repeat(80) + "\n";
        for lines in [1, PAGE_LINES, 3 * PAGE_LINES] {
            let drawn = pdf(page.repeat(lines).as_bytes());
            let pages = lines.div_ceil(PAGE_LINES);
            let room = HEAD_LEN_MAX + pages * (HEAD_LEN_MAX + PAGE_LINES * LINE_LEN_MAX);
            assert!(drawn.len() < room && drawn.capacity() == room, "it never grew");
        }
    }
}
