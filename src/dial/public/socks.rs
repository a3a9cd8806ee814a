//! The protocols SOCKS4, SOCKS4a and SOCKS5, for requests to a public proxy. Pure: no I/O.
//!
//! Greeting, login and request are sent one after the other, each after the answer to the message before. Many free
//! proxies read only the first message if several arrive together. The size of every answer is known before the answer
//! is read.

use std::net::IpAddr;

use crate::dial::{ExitFault, socks_address};
use crate::exit::Login;
use crate::net::{Host, Target};

/// Returns the SOCKS5 greeting. Without `login` it offers only "no authentication". With `login` it also offers
/// username and password.
pub(super) fn greeting(login: Option<&Login>) -> &'static [u8] {
    if login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] }
}

/// Returns the login message of SOCKS5, or `None` if the username or the password is longer than 255 bytes, the limit
/// of SOCKS5.
pub(super) fn login(login: &Login) -> Option<Vec<u8>> {
    let (user, password) = (login.user.as_bytes(), login.password.expose().as_bytes());
    let mut bytes = vec![1, u8::try_from(user.len()).ok()?];
    bytes.extend(user);
    bytes.push(u8::try_from(password.len()).ok()?);
    bytes.extend(password);
    Some(bytes)
}

pub(super) fn request5(target: &Target) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0];
    socks_address::push(&mut bytes, &target.host, target.port);
    bytes
}

/// Returns the SOCKS4 request, or the SOCKS4a request if the target is a name. Returns `None` if SOCKS4 cannot express
/// the target.
pub(super) fn request4(target: &Target, login: Option<&Login>) -> Option<Vec<u8>> {
    let user = login.map_or("", |login| &login.user);
    if user.bytes().any(|byte| byte == 0) {
        return None;
    }
    let mut bytes = vec![4, 1];
    bytes.extend(target.port.to_be_bytes());
    let name = match &target.host {
        Host::Ip(IpAddr::V4(ip)) => {
            bytes.extend(ip.octets());
            None
        }
        Host::Ip(IpAddr::V6(_)) => return None,
        Host::Name(name) => {
            bytes.extend([0, 0, 0, 1]);
            Some(name)
        }
    };
    bytes.extend(user.as_bytes());
    bytes.push(0);
    if let Some(name) = name {
        bytes.extend(name.as_bytes());
        bytes.push(0);
    }
    Some(bytes)
}

/// Maps the first four bytes of a SOCKS5 answer to success or a fault.
pub(super) fn result5(head: [u8; 4]) -> Result<(), ExitFault> {
    match head {
        [5, 0, _, _] => Ok(()),
        [5, 2, _, _] => Err(ExitFault::Policy),
        [5, 1 | 3..=6, _, _] => Err(ExitFault::Unclear),
        _ => Err(ExitFault::Refused),
    }
}

/// Maps a SOCKS4 answer to success or a fault. Only the codes 90 and 91 are about the request itself.
pub(super) fn result4(answer: [u8; 8]) -> Result<(), ExitFault> {
    match answer {
        [0 | 4, 90, ..] => Ok(()),
        [0 | 4, 91, ..] => Err(ExitFault::Unclear),
        _ => Err(ExitFault::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Secret;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn requests_carry_names_that_are_not_resolved() {
        let user = Login { user: "ab".into(), password: Secret::new("c") };
        assert_eq!(greeting(None), [5, 1, 0]);
        assert_eq!(login(&user).unwrap(), b"\x01\x02ab\x01c");
        assert_eq!(request5(&target("web.test:80")), b"\x05\x01\x00\x03\x08web.test\x00\x50");
        assert_eq!(request5(&target("1.2.3.4:443")), b"\x05\x01\x00\x01\x01\x02\x03\x04\x01\xbb");
        assert_eq!(request5(&target("[::1]:80")), b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50");
        assert_eq!(request4(&target("web.test:80"), Some(&user)).unwrap(), b"\x04\x01\x00\x50\0\0\0\x01ab\0web.test\0");
        assert_eq!(request4(&target("1.2.3.4:80"), None).unwrap(), b"\x04\x01\x00\x50\x01\x02\x03\x04\0");
        assert_eq!(request4(&target("[::1]:80"), None), None);
        let long = Login { user: "x".repeat(256).into(), password: Secret::default() };
        assert_eq!(login(&long), None);
        let split = Login { user: "a\0b".into(), password: Secret::default() };
        assert_eq!(request4(&target("a.b:80"), Some(&split)), None, "a name could be smuggled in");
    }

    #[test]
    fn each_answer_maps_to_whose_fault_it_is() {
        use ExitFault::*;
        for (head, want) in [
            ([5, 0, 0, 1], Ok(())),
            ([5, 2, 0, 1], Err(Policy)),
            ([5, 4, 0, 1], Err(Unclear)),
            ([5, 7, 0, 1], Err(Refused)),
            ([4, 0, 0, 1], Err(Refused)),
            (*b"HTTP", Err(Refused)),
        ] {
            assert_eq!(result5(head), want, "{head:?}");
        }
        for (code, want) in [(90, Ok(())), (91, Err(Unclear)), (93, Err(Refused)), (0, Err(Refused))] {
            assert_eq!(result4([0, code, 0, 0, 0, 0, 0, 0]), want, "{code}");
        }
    }
}
