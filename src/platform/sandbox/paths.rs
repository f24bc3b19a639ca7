//! Paths and TCP ports: Landlock. Connections are free, since rules, sources and callbacks name
//! their ports while the box runs; what is bound is known at the start.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use super::{Confinement, Reach};

/// The newest interface that was tried; older kernels do what they know of it.
const TRIED: ABI = ABI::V5;

pub(super) fn confine(confinement: &Confinement) -> Result<Reach, String> {
    let status = restrict(confinement).map_err(|error| format!("landlock: {error}"))?;
    Ok(match status {
        RulesetStatus::FullyEnforced => Reach::Whole,
        RulesetStatus::PartiallyEnforced => Reach::Part,
        RulesetStatus::NotEnforced => Reach::None,
    })
}

fn restrict(confinement: &Confinement) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(TRIED);
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    // What makes devices and programs of files stays closed.
    let writes = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let ports = confinement.listens.iter().map(|port| NetPort::new(*port, AccessNet::BindTcp));
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .create()?
        .add_rules(rules(&confinement.reads, reads))?
        .add_rules(rules(&confinement.writes, writes))?
        .add_rules(ports.map(Ok::<_, RulesetError>))?
        .restrict_self()?;
    Ok(restricted.ruleset)
}

fn rules(
    paths: &[std::path::PathBuf],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    path_beneath_rules(paths, access)
}
