//! T-01: what a handler uses cannot be freed while its callout is there: the handler owns it, or shares it.
use undercroft_timer::Callout;

fn main() {
    let pcb = String::from("protocol control block");
    let callout: Callout = Callout::new(0, |_, _| println!("{}", pcb.len()));
    let _ = callout.stop();
    drop(pcb);
}
