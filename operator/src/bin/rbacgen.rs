//! Writes the operator's rights into the chart. Run it in the root of the repository.

use corral_operator::rbac;

fn main() -> anyhow::Result<()> {
    std::fs::write(rbac::CHART_FILE, rbac::chart_rules())?;
    Ok(())
}
