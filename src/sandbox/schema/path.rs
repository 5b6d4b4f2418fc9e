//! Where in an object one is: put together only when there is something to say of it.

use std::fmt;

/// A path of field names and indices, linked from its end.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field.
    Field(&'a Path<'a>, &'a str),
    /// A member of a map with free keys.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list.
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Returns the names on the way, without indices.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Root => Vec::new(),
            Self::Item(before, _) => before.names(),
            Self::Field(before, name) | Self::Key(before, name) => {
                let mut names = before.names();
                names.push(name);
                names
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    /// Writes `spec.containers[0].resources.limits[cpu]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(before, name) => write!(f, "{before}.{name}"),
            Self::Key(before, name) => write!(f, "{before}[{name}]"),
            Self::Item(before, index) => write!(f, "{before}[{index}]"),
        }
    }
}
