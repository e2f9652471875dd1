//! `cargo xtask run`: boot the image under QEMU (or on what `--on` names), verify and measure every disk.

pub mod boot;
mod check;
mod line;
mod monitor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cli::{On, RunOptions};
use crate::disk::option::Bus;
use crate::disk::{self, Backend, Disk, digest, inspect, prepare};
use crate::host::{install, interrupt, program, workspace};
use crate::hyperv;
use crate::image::build::{self, Image};
use crate::qemu::process::Limits;
use crate::qemu::version;
use crate::report::verdict::{self, Expected};
use crate::report::voice::Voice;
use crate::report::{json, session::Session, text};
use crate::xen;
use boot::Boot;

/// Runs the command; false if something did not hold.
pub fn command(options: &RunOptions) -> Result<bool> {
    let voice = Voice { json: options.json };
    run(options, voice).inspect_err(|_| {
        // A program that reads the events gets its last one even if there was nothing to boot.
        voice.event(&json::summary(&Session::default(), &["not run".into()]));
    })
}

fn run(options: &RunOptions, voice: Voice) -> Result<bool> {
    interrupt::watch();
    // The user's disks come first: nothing is installed or built for a name mistyped.
    let own_disks = inspect::inspect(&options.disks)?;
    let own_disks = match options.on {
        On::Qemu => own_disks,
        On::Xen => xen::named(disk::all_on(own_disks, Bus::Xen, "Xen")?),
        On::Hyperv => disk::all_on(own_disks, Bus::Storvsc, "Hyper-V")?,
    };
    let qemu = machine(options, voice)?;
    let directory = workspace::scratch()?;
    let image = image(options, directory.path(), voice)?;
    interrupt::check()?;
    let disks = if options.disks.is_empty() { prepare(options, directory.path(), voice)? } else { own_disks };
    let before = digests(&disks, options.workload.verifies(), voice)?;
    let expected: Vec<Expected> = disks
        .iter()
        .zip(&before)
        .map(|(disk, digests)| Expected { disk, sha256: digests.as_ref().map(|d| d.whole.clone()) })
        .collect();

    voice.say(&match options.on {
        On::Qemu => format!("booting {} under QEMU", options.machine.name()),
        On::Xen if xen::host::is_here() => "starting a domain of this Xen host".to_owned(),
        On::Xen => "booting Xen under QEMU, and on it a domain".to_owned(),
        On::Hyperv => "booting a Hyper-V machine on /dev/kvm".to_owned(),
    });
    let boot = Boot {
        qemu: &qemu,
        on: options.on,
        directory: directory.path(),
        pin: None,
        machine: options.machine,
        cpus: options.cpus,
        memory_mib: options.memory,
        image: &image,
        command_line: &line::command_line(options, &disks),
        disks: &disks,
        expected: &expected,
        extra: if options.on == On::Hyperv { &options.vmm_args } else { &options.qemu_args },
        vmm: options.vmm,
        limits: Limits { whole: Duration::from_secs(options.timeout), silence: Duration::from_secs(options.silence) },
    };
    if options.monitor {
        let good = monitor::monitor(&boot, options.workload.verifies(), voice)?;
        keep(options, directory, &[], voice)?;
        return Ok(good);
    }
    let (session, exit) = boot::boot(&boot, voice)?;

    let host: Vec<check::Afterwards> = disks
        .iter()
        .zip(&before)
        .map(|(disk, before)| {
            check::afterwards(disk, before.as_ref(), &session, (options.seed, options.workload.verifies()))
        })
        .collect();
    for said in host.iter().flat_map(|afterwards| &afterwards.said) {
        voice.say(said);
    }
    let host_failures: Vec<String> = host.iter().flat_map(|afterwards| afterwards.failures.clone()).collect();
    let failures = verdict::failures(options.workload, &expected, &session, &exit, &host_failures);
    report(voice, &session, &expected, &host, &failures);
    keep(options, directory, &failures, voice)?;
    Ok(failures.is_empty())
}

/// The program that plays the machine.
fn machine(options: &RunOptions, voice: Voice) -> Result<PathBuf> {
    let is_xen = options.on == On::Xen && xen::host::is_here();
    if options.on != On::Hyperv && !is_xen {
        return qemu(options, voice);
    }
    let disk_tools = if options.disks.is_empty() { install::FILE_SYSTEMS.as_slice() } else { &[] };
    install::tools(disk_tools)?;
    if is_xen { program::find("xl") } else { hyperv::program(options.vmm, voice) }
}

fn qemu(options: &RunOptions, voice: Voice) -> Result<PathBuf> {
    let own = options.qemu != Path::new("qemu-system-x86_64");
    let qemu_tools = if own { &[] } else { install::QEMU.as_slice() };
    let disk_tools = if options.disks.is_empty() { install::FILE_SYSTEMS.as_slice() } else { &[] };
    let xen_tools = if options.on == On::Xen { install::XEN.as_slice() } else { &[] };
    install::tools(qemu_tools.iter().chain(disk_tools).chain(xen_tools))?;
    let qemu = program::find(&options.qemu).context("--qemu")?;
    let version = version::check(&qemu)?;
    voice.say(&format!("QEMU {version} ({})", qemu.display()));
    Ok(qemu)
}

fn image(options: &RunOptions, directory: &Path, voice: Voice) -> Result<Image> {
    let image = match &options.kernel {
        Some(elf) => build::image(elf.clone(), directory)?,
        None => {
            voice.say("building the image");
            build::build(None, directory)?
        }
    };
    voice.say(&format!("image of {} bytes", image.bytes));
    Ok(image)
}

fn prepare(options: &RunOptions, directory: &Path, voice: Voice) -> Result<Vec<Disk>> {
    let mut recipes = prepare::recipes(options.on, options.machine, &options.buses)?;
    if options.on == On::Xen && xen::host::is_here() {
        // What its files have.
        recipes.retain(|recipe| recipe.block_size == 512);
    }
    voice.say(&format!("preparing {} disks of {} MiB each", recipes.len(), options.disk_size));
    let one = |recipe: &prepare::Recipe| {
        interrupt::check()?;
        prepare::prepare(directory, recipe, options.disk_size, options.seed)
    };
    recipes.into_iter().map(one).collect()
}

fn digests(disks: &[Disk], stores: bool, voice: Voice) -> Result<Vec<Option<digest::Digests>>> {
    let total: u64 = disks.iter().map(|disk| disk.bytes).sum();
    if total > 1 << 30 {
        voice.say(&format!("hashing {} on the host", text::bytes(total)));
    }
    let one = |disk: &Disk| match &disk.backend {
        Backend::File(path) => {
            interrupt::check()?;
            digest::digest(path, disk.bytes, &disk.changing(stores)).map(Some)
        }
        Backend::Null => Ok(None),
    };
    disks.iter().map(one).collect()
}

fn report(voice: Voice, session: &Session, expected: &[Expected], host: &[check::Afterwards], failures: &[String]) {
    for seen in &session.disks {
        let index = expected.iter().position(|e| e.disk.serial == seen.found.serial);
        let host_verified = index.and_then(|i| host[i].pattern_holds);
        voice.event(&json::disk(seen, index.map(|i| &expected[i]), host_verified));
    }
    session.disks.iter().filter_map(|seen| seen.cached.as_ref()).for_each(|it| voice.event(&json::cached(it)));
    session.speed.iter().for_each(|row| voice.event(&json::speed(row)));
    session.sequential.iter().for_each(|row| voice.event(&json::sequential(row)));
    session.latency.iter().for_each(|latency| voice.event(&json::latency(latency)));
    session.heaps.iter().for_each(|heap| voice.event(&json::heap(heap)));
    session.reserve.iter().for_each(|reserve| voice.event(&json::reserve(reserve)));
    session.xen.iter().for_each(|xen| voice.event(&json::xen(xen)));
    session.cpus.iter().for_each(|cpu| voice.event(&json::cpu(cpu)));
    session.files.iter().for_each(|files| voice.event(&json::files(files)));
    session.stored.iter().for_each(|stored| voice.event(&json::stored(stored)));
    voice.event(&json::summary(session, failures));
    text::sequential_table(&session.sequential).iter().for_each(|line| voice.say(line));
    text::speed_table(&session.speed).iter().for_each(|line| voice.say(line));
    text::summary(session, failures).iter().for_each(|line| voice.say(line));
}

fn keep(options: &RunOptions, directory: tempfile::TempDir, failures: &[String], voice: Voice) -> Result<()> {
    let prepared = options.disks.is_empty();
    if options.keep {
        let path = directory.keep();
        ensure!(path.is_dir(), "the disks could not be kept in {}", path.display());
        if prepared {
            voice.say(&format!("the disks are in {}", path.display()));
        }
    } else if prepared && !failures.is_empty() {
        voice.say("(--keep leaves the disks for inspection)");
    }
    Ok(())
}
