//! A SOCKS opening with any bytes, whole and byte by byte: no panic, the same steps, and an end within the bound.
use exitgate::gateway::socks::{NO_METHOD, OPENING_MAX, Socks, Step};

/// Runs the opening, and returns how it ended and how many bytes it used.
fn run_opening(opening: &[u8], piece: usize) -> (u8, usize) {
    let Some(mut socks) = Socks::begin(opening[0], false) else { return (0, 0) };
    let mut have = 1;
    loop {
        match socks.step(&opening[..have]) {
            Step::More if have == opening.len() => {
                assert!(have < OPENING_MAX);
                return (1, 0);
            }
            Step::More => have = (have + piece).min(opening.len()),
            Step::Send(NO_METHOD) => return (2, 0),
            Step::Send(_) => {}
            Step::Check => assert!(socks.credentials(&opening[..have]).username.len() <= 255),
            Step::Do { used, .. } => {
                assert!(used <= have);
                return (3, used);
            }
            Step::Refuse(failure) => return (4, usize::from(failure.socks5())),
        }
    }
}

/// Runs one input.
pub fn run(opening: &[u8]) {
    if !opening.is_empty() {
        assert_eq!(run_opening(opening, 1), run_opening(opening, opening.len()));
    }
}
