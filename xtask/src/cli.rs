//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::disk::option::{Bus, DiskOption};

/// Builds, runs, tests and measures Undercroft.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Boot the image under QEMU, verify and measure every disk
    Run(RunOptions),
    /// Run every test there is, or the named groups
    Test(TestOptions),
    /// Compare with others on the same virtual hardware
    Bench(BenchOptions),
    /// Feed the targets of fuzz/ with what libFuzzer makes up, and keep what reaches something new
    Fuzz(FuzzOptions),
    /// Measure which lines of the drivers, the block layer, the timer and the page cache the tests reach
    Cov(CovOptions),
    /// Run the whole stack on simulated machines, by seeds, with everything going wrong
    Sim(SimOptions),
    /// Build the bootable image only
    Build(BuildOptions),
    /// Check format, clippy and the count of unsafe code
    Lint(LintOptions),
    /// Show which hazards are proven to be absent, and whether the proofs hold
    Audit(AuditOptions),
}

/// How `cargo xtask run` boots the image, and what it asks of it.
#[derive(Args, Clone)]
pub struct RunOptions {
    /// A disk file of your own: FILE[,bus=virtio-blk|virtio-scsi|pvscsi|ide][,ro|rw[=START:LENGTH]].
    /// Repeatable; read only unless `rw` is given; `none` boots without any disk.
    /// `rw` allows the write phase to overwrite bytes START to START+LENGTH (or else the
    /// partition named undercroft-scratch, or a wholly blank disk). A comma in FILE is doubled.
    /// Without this option disks with file systems on them are prepared for the run.
    #[arg(long = "disk", value_name = "FILE[,OPTIONS]")]
    pub disks: Vec<DiskOption>,
    /// The controllers of the disks that are prepared, separated by commas; all that the machine has without
    #[arg(long = "bus", value_enum, value_delimiter = ',', value_name = "BUS", conflicts_with = "disks")]
    pub buses: Vec<Bus>,
    /// What it runs on: QEMU itself, a domain of the real Xen, which QEMU runs in turn, or a Hyper-V machine on /dev/kvm
    #[arg(long, value_enum, default_value_t = On::Qemu)]
    pub on: On,
    /// The machine QEMU plays
    #[arg(long, value_enum, default_value_t = Machine::Q35)]
    pub machine: Machine,
    /// Number of processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Memory of the machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub memory: u32,
    /// Which phases run
    #[arg(long, value_enum, default_value_t = Workload::All, default_value_if("monitor", "true", "none"))]
    pub workload: Workload,
    /// After the workload (none unless you ask for one) the image stays at a prompt: type `help`, and `quit` at the end.
    /// Standard input goes to it; the end of that is a `quit`
    #[arg(long, conflicts_with = "json")]
    pub monitor: bool,
    /// Seed of disk contents, patterns and random sequences
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds after which the run is stopped and fails
    #[arg(long, value_name = "S", default_value_t = 300, default_value_ifs([("monitor", "true", "1000000"), ("on", "hyperv", "1200")]), value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: u64,
    /// Leave the prepared disks for inspection
    #[arg(long)]
    pub keep: bool,
    /// Which program plays Hyper-V, with --on hyperv
    #[arg(long, value_enum, default_value_t = Vmm::BuiltIn)]
    pub vmm: Vmm,
    /// A further argument for the program that plays Hyper-V, as it is. Repeatable
    #[arg(long = "vmm-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub vmm_args: Vec<String>,
    /// A further argument for QEMU, as it is. Repeatable
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_args: Vec<String>,
    /// JSON Lines on standard output, text for people on standard error
    #[arg(long)]
    pub json: bool,
    /// The QEMU program to use; nothing is installed then
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Boot this ELF file instead of building the image
    #[arg(long, value_name = "ELF")]
    pub kernel: Option<PathBuf>,
    /// Size in MiB of each prepared disk; 4 with --on hyperv, where /dev/kvm may be a slow one
    #[arg(long, value_name = "MIB", default_value_t = 64, default_value_if("on", "hyperv", "4"), value_parser = clap::value_parser!(u64).range(4..=65536))]
    pub disk_size: u64,
    /// Milliseconds the image spends on each row of the speed table
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub speed_ms: Option<u32>,
    /// Seconds without a word from the image after which it is taken for hung
    #[arg(long, value_name = "S", default_value_t = 30, default_value_if("on", "hyperv", "200"), value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub silence: u64,
}

/// What the image runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// A machine of QEMU
    Qemu,
    /// A PVH domain of Debian's Xen under QEMU; everything that is needed is fetched, nothing is installed but QEMU
    Xen,
    /// A machine on /dev/kvm that has its disks on VMBus, and no others
    Hyperv,
}

/// Programs that play Hyper-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vmm {
    /// The one that comes with this project
    BuiltIn,
    /// OpenVMM, if it is installed
    Openvmm,
}

impl On {
    pub fn name(self) -> &'static str {
        match self {
            On::Qemu => "QEMU",
            On::Xen => "Xen",
            On::Hyperv => "Hyper-V",
        }
    }
}

/// Machines of QEMU the image boots on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Machine {
    /// PCI Express, ACPI
    Q35,
    /// PCI, ACPI
    Pc,
    /// virtio-mmio, no PCI
    Microvm,
}

impl Machine {
    pub fn name(self) -> &'static str {
        match self {
            Machine::Q35 => "q35",
            Machine::Pc => "pc",
            Machine::Microvm => "microvm",
        }
    }

    /// Whether a controller can be on it.
    pub fn has(self, bus: Bus) -> bool {
        !matches!(bus, Bus::Xen | Bus::Storvsc) && (self != Machine::Microvm || !bus.needs_pci())
    }
}

/// The phases of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Read every disk whole, and write and read back where that is allowed
    Verify,
    /// Measure
    Speed,
    /// Both
    All,
    /// Only find the disks
    None,
}

impl Workload {
    /// The word on the image's command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Verify => "verify",
            Workload::Speed => "speed",
            Workload::All => "all",
            Workload::None => "none",
        }
    }

    pub fn verifies(self) -> bool {
        matches!(self, Workload::Verify | Workload::All)
    }

    pub fn measures(self) -> bool {
        matches!(self, Workload::Speed | Workload::All)
    }
}

#[derive(Args)]
pub struct BuildOptions {
    /// Features of the kernel crate to switch on, separated by commas
    #[arg(long, value_name = "LIST")]
    pub features: Option<String>,
}

#[derive(Args)]
pub struct TestOptions {
    /// Groups to run; all without any
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// List the groups and run nothing
    #[arg(long)]
    pub list: bool,
    /// How often the group `power` cuts the power on every controller
    #[arg(long, value_name = "N", default_value_t = CUTS, default_value_if("long", "true", "100"), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub cuts: u32,
    /// As thorough as the requirements ask for where that takes minutes: 100 power cuts, every combination on Xen
    #[arg(long)]
    pub long: bool,
    /// Seed of the moments of the cuts, and of what is lost
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Power cuts on each controller unless more are asked for.
const CUTS: u32 = 10;

impl TestOptions {
    /// One group, as it runs without further options.
    pub fn of(group: &str) -> Self {
        Self { groups: vec![group.into()], list: false, cuts: CUTS, long: false, seed: 1 }
    }
}

#[derive(Args)]
pub struct AuditOptions {
    /// JSON Lines on standard output, text for people on standard error
    #[arg(long)]
    pub json: bool,
    /// Everything about one item
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// The open items only
    #[arg(long)]
    pub open: bool,
    /// First run every test and every negative control that the table names, as `cargo xtask test audit` does
    #[arg(long, conflicts_with_all = ["json", "page"])]
    pub verify: bool,
    /// Write the page of the book that names every test and every broken variant, and nothing else
    #[arg(long, conflicts_with_all = ["id", "open"])]
    pub page: bool,
}

#[derive(Args)]
pub struct CovOptions {
    /// Per cent of the lines of all measured crates together that are enough
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub at_least: u8,
    /// A line for each file too, the least covered first
    #[arg(long)]
    pub files: bool,
    /// JSON Lines on standard output, text for people on standard error
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct LintOptions {
    /// Lower the checked-in numbers of unsafe to what there is now (never raises one)
    #[arg(long)]
    pub lower: bool,
}

#[derive(Args)]
pub struct BenchOptions {
    #[command(subcommand)]
    pub with: BenchWith,
}

/// What goes to the simulation.
#[derive(Args)]
pub struct SimOptions {
    /// Put back each known bug, and find it
    #[arg(long)]
    pub mutants: bool,
    /// Everything else: `--help` after `--` shows it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub others: Vec<String>,
}

/// What `cargo xtask fuzz` does.
#[derive(Args)]
pub struct FuzzOptions {
    #[command(subcommand)]
    pub what: Fuzz,
}

#[derive(Subcommand)]
pub enum Fuzz {
    /// Name the targets, what their bytes are, and how many inputs are kept of each
    List,
    /// Feed targets with what libFuzzer makes up, beginning with what was found before
    Run(FuzzRunOptions),
    /// Show, as HTML, which lines the inputs reach that are kept
    Cov(FuzzTargets),
    /// Keep, of all inputs that were found, the fewest that reach as much: in fuzz/corpus
    Corpus(FuzzTargets),
    /// Boot the image under QEMU again and again, and have its disks do what a seed says while they are reset, stand still, come and go
    Guest(FuzzGuestOptions),
}

#[derive(Args)]
pub struct FuzzGuestOptions {
    /// The first seed; one that nobody has used without. Each boot takes the next
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long; 0 is one boot
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub minutes: u32,
    /// Acts in each boot
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub acts: u32,
}

#[derive(Args)]
pub struct FuzzTargets {
    /// The targets; all of them without
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

#[derive(Args)]
pub struct FuzzRunOptions {
    /// The targets
    #[arg(value_name = "TARGET", required_unless_present = "all")]
    pub targets: Vec<String>,
    /// Every target, one after the other
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,
    /// How long, for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// How long in all: the targets take turns of ten minutes at most
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hours: Option<u32>,
    /// Processes at a time, which share what they find
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: u32,
}

#[derive(Subcommand)]
pub enum BenchWith {
    /// Debian's Linux with O_DIRECT and native asynchronous I/O, in the same QEMU
    Linux(BenchLinuxOptions),
    /// Debian's Linux with O_DIRECT and native asynchronous I/O, as a domain beside ours under the same Xen
    Xen(BenchXenOptions),
    /// The bottom-half queue beside crossbeam's queues, on this machine
    Bhqueue(BenchRatiosOptions),
    /// The locked heap beside talc behind a spin mutex, on this machine
    Heap(BenchRatiosOptions),
    /// The callout wheel beside other timer wheels, tokio's queue of delays and an ordered map, on this machine
    Callouts(BenchCalloutsOptions),
    /// The page cache beside a bare copy, quick_cache, Linux's own and least recently used, on this machine
    Pagecache(BenchRatiosOptions),
}

#[derive(Args)]
pub struct BenchCalloutsOptions {
    #[command(flatten)]
    pub ratios: BenchRatiosOptions,
    /// Draws the table into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Args)]
pub struct BenchRatiosOptions {
    /// Rounds, each with every candidate in turn
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// JSON Lines on standard output, the verdicts on standard error
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchXenOptions {
    /// Alternating rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// The host processor QEMU is pinned to
    #[arg(long, default_value_t = 0)]
    pub host_cpu: u32,
    /// Milliseconds that each side spends on each row
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub speed_ms: u32,
    /// JSON Lines on standard output, text for people on standard error
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchLinuxOptions {
    /// Alternating rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// The host processor QEMU is pinned to
    #[arg(long, default_value_t = 0)]
    pub host_cpu: u32,
    /// Milliseconds our image spends on each row
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub speed_ms: u32,
    /// JSON Lines on standard output, text for people on standard error
    #[arg(long)]
    pub json: bool,
}
