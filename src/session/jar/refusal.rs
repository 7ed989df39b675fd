//! Why a cookie is not stored.

/// Why a cookie is not stored. Contains nothing of the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    ControlCharacter,
    Empty,
    TooLong,
    PathTooLong,
    DomainNotAscii,
    PublicSuffix,
    OtherDomain,
    InsecureOrigin,
    ShadowsSecure,
    SecurePrefix,
    HostPrefix,
    NamelessPrefix,
}

impl Refusal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ControlCharacter => "the cookie contains a control character",
            Self::Empty => "the cookie has neither a name nor a value",
            Self::TooLong => "name and value of the cookie exceed 4096 bytes",
            Self::PathTooLong => "the path of the cookie exceeds 1024 bytes",
            Self::DomainNotAscii => "the domain of the cookie is not ASCII",
            Self::PublicSuffix => "the domain of the cookie is a public suffix",
            Self::OtherDomain => "the domain of the cookie does not include the host",
            Self::InsecureOrigin => "a Secure cookie can be set over https only",
            Self::ShadowsSecure => "a Secure cookie cannot be replaced over http",
            Self::SecurePrefix => "a cookie named __Secure- must have the attribute Secure",
            Self::HostPrefix => {
                "a cookie named __Host- must have the attributes Secure and Path=/, and no Domain"
            }
            Self::NamelessPrefix => {
                "the value of a cookie without a name must not begin with __Secure- or __Host-"
            }
        }
    }
}
