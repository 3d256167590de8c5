//! Known answers before the first answer: every primitive, and every piece built upon them.

/// The proof that the self-tests passed: only [`run_self_tests`] makes it, and serving asks for it.
#[derive(Debug)]
pub struct SelfTestsPassed(());

/// A known answer did not come out: nothing may be served.
#[derive(Debug, thiserror::Error)]
#[error("the self-test of {algorithm} failed")]
pub struct SelfTestFailed {
    /// What failed, in the words of its standard.
    pub algorithm: &'static str,
}

/// Computes every known answer.
pub fn run_self_tests() -> Result<SelfTestsPassed, SelfTestFailed> {
    crate::crypto::self_test::run()
        .map_err(|failed| SelfTestFailed { algorithm: failed.algorithm })?;
    for (algorithm, right) in [
        ("DUKPT", crate::dukpt::self_test()),
        ("key blocks", crate::keyblock::self_test()),
        ("PIN blocks", crate::pin::self_test()),
    ] {
        if !right {
            return Err(SelfTestFailed { algorithm });
        }
    }
    Ok(SelfTestsPassed(()))
}
