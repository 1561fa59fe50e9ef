//! Adds headers to an upstream's answer at the least cost.
//!
//! Pingora keeps the spelling of every name in a second table in step with the first, which makes an
//! added header several times as dear. The table goes where no name needs it: those in lower case
//! stay so, except that the usual ones are written `Content-Type` then, as nginx does. What we add is in
//! lower case, as in HTTP/2 (RFC 9110, 5.1: names mean the same in any case).

use super::header_map::put;
use http::response::Parts;
use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

/// Headers that Pingora adds after us: `Date` and `Connection`.
const ADDED_BY_PINGORA: usize = 2;

/// Lets `add` put up to `most` headers in place of those of the same name.
pub(super) fn change(
    response: &mut ResponseHeader,
    most: usize,
    add: impl FnOnce(&mut dyn FnMut(HeaderName, HeaderValue) -> Result<()>) -> Result<()>,
) -> Result<()> {
    if needs_table(response) {
        return add(&mut |name, value| response.insert_header(name, value));
    }
    let nothing = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts: Parts = std::mem::replace(response, nothing).into();
    let headers = &mut parts.headers;
    headers.reserve(most + ADDED_BY_PINGORA);
    let added = add(&mut |name, value| {
        put(headers, name, value);
        Ok(())
    });
    *response = ResponseHeader::from(parts);
    added
}

fn needs_table(response: &ResponseHeader) -> bool {
    // a phrase of the upstream's own would be lost with it
    response.get_reason_phrase() != response.status.canonical_reason()
        || response
            .case_header_iter()
            .any(|(name, _)| !is_usual(name.as_slice()))
}

/// Lower case, or one of the names that Pingora writes in this case by itself.
fn is_usual(name: &[u8]) -> bool {
    match name {
        b"Accept-Ranges" | b"Age" | b"Cache-Control" | b"Connection" | b"Content-Encoding"
        | b"Content-Length" | b"Content-Type" | b"Date" | b"Server" | b"Set-Cookie"
        | b"Transfer-Encoding" => true,
        _ => !name.iter().any(u8::is_ascii_uppercase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer as HTTP/1 writes it, with a header added.
    fn written(response: &mut ResponseHeader) -> (bool, String) {
        change(response, 1, |put| {
            put(HeaderName::from_static("x-added"), HeaderValue::from(1))
        })
        .unwrap();
        let mut wire = Vec::new();
        response.header_to_h1_wire(&mut wire);
        (response.has_case(), String::from_utf8(wire).unwrap())
    }

    #[test]
    fn usual_names_need_no_table() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        let names = [
            "Accept-Ranges",
            "Age",
            "Cache-Control",
            "Connection",
            "Content-Encoding",
            "Content-Length",
            "Content-Type",
            "Date",
            "Server",
            "Set-Cookie",
            "Transfer-Encoding",
            "x-lower",
        ];
        let mut expected = String::new();
        for name in names {
            response.append_header(name, "1").unwrap();
            expected += &format!("{name}: 1\r\n");
        }
        expected += "x-added: 1\r\n";
        assert_eq!(written(&mut response), (false, expected));
    }

    #[test]
    fn usual_names_in_lower_case_are_written_the_usual_way() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.append_header("content-type", "1").unwrap();
        let expected = "Content-Type: 1\r\nx-added: 1\r\n".to_owned();
        assert_eq!(written(&mut response), (false, expected));
    }

    #[test]
    fn unusual_names_stay_as_they_came() {
        for name in ["ETag", "X-Powered-By", "CONTENT-TYPE", "DATE", "eTag"] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            response.append_header(name, "1").unwrap();
            let expected = format!("{name}: 1\r\nx-added: 1\r\n");
            assert_eq!(written(&mut response), (true, expected));
        }
    }

    #[test]
    fn several_values_of_a_name_stay_in_order() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.append_header("Set-Cookie", "a=1").unwrap();
        response.append_header("Age", "1").unwrap();
        response.append_header("Set-Cookie", "b=2").unwrap();
        let (_, wire) = written(&mut response);
        assert_eq!(
            wire,
            "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nAge: 1\r\nx-added: 1\r\n"
        );
    }

    #[test]
    fn a_reason_phrase_of_its_own_stays() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.set_reason_phrase(Some("Just Fine")).unwrap();
        written(&mut response);
        assert_eq!(response.get_reason_phrase(), Some("Just Fine"));
    }
}
