//! Writes the custom resource definitions into `crds/yaml` and the chart. Run it in the root of the repository.

use std::{fs, path::Path};

fn main() -> anyhow::Result<()> {
    for file in corral_crds::yaml::files()? {
        let path = Path::new(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, file.content)?;
    }
    Ok(())
}
