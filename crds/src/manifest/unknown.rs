//! The path of a field that nobody reads.

use serde_ignored::Path;

/// The path as people write it, or none where it is not ours to judge: metadata is Kubernetes' own.
pub(super) fn path(path: &Path<'_>) -> Option<String> {
    let mut written = String::new();
    write(path, &mut written);
    (!written.starts_with("metadata.")).then_some(written)
}

fn write(path: &Path<'_>, written: &mut String) {
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            write(parent, written);
            written.extend(["[", &index.to_string(), "]"]);
        }
        Path::Map { parent, key } => {
            write(parent, written);
            if !written.is_empty() {
                written.push('.');
            }
            written.push_str(key);
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            write(parent, written);
        }
    }
}
