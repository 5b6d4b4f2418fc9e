//! `/openapi/v2`, which `kubectl` before 1.29 asks, and only in Protobuf: which parameters a patch of each kind takes.
//!
//! It holds no types: such a `kubectl` has those of Kubernetes itself. The field numbers are those of
//! github.com/google/gnostic-models, openapiv2/OpenAPIv2.proto.

use crate::sandbox::api::resources::{Registry, Resource};

/// Returns the document.
pub fn document(registry: &Registry) -> Vec<u8> {
    let mut paths = Message::default();
    for resource in registry.all() {
        let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let name = format!("/{}/{scope}{}/{{name}}", super::place(resource), resource.plural);
        let patch = Message::default().message(7, &operation(resource));
        paths = paths.message(2, &Message::default().text(1, &name).message(2, &patch));
    }
    let info = Message::default().text(1, "Kubernetes").text(2, crate::sandbox::api::discovery::VERSION);
    Message::default().text(1, "2.0").message(2, &info).message(8, &paths).0
}

fn operation(resource: &Resource) -> Message {
    let mut made = Message::default();
    for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        let query = Message::default().text(2, "query").text(4, name).text(6, "string");
        let parameter = Message::default().message(2, &Message::default().message(3, &query));
        made = made.message(8, &Message::default().message(1, &parameter));
    }
    let kind = format!("group: {:?}\nkind: {}\nversion: {}\n", resource.group, resource.kind, resource.version);
    let extension =
        Message::default().text(1, "x-kubernetes-group-version-kind").message(2, &Message::default().text(2, &kind));
    made.message(13, &extension)
}

/// A Protobuf message of strings and messages.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u8, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u8, bytes: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        let mut length = bytes.len();
        while length > 0x7f {
            self.0.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        self.0.push(u8::try_from(length).unwrap_or_default());
        self.0.extend_from_slice(bytes);
        self
    }
}
