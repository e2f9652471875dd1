//! The switches of negative controls, for this crate and those above it.
//!
//! A test puts a defect back for its own thread, or in one driver. Built with `--cfg put_back`, as `cargo xtask sim --mutants` does, a program
//! puts one back for good: the one that it chooses at its start.

#[cfg(all(put_back, feature = "std"))]
mod chosen;

#[cfg(all(put_back, feature = "std"))]
pub use chosen::{Switch, choose, reached};

/// Makes, for an enum of defects, `is`, which a program's code asks and which is the constant `false` there, and `with`, by which a test puts one
/// back: one at a time, on its own thread. Which of the two it is, is the calling crate's `cfg(test)`.
#[doc(hidden)]
#[macro_export]
macro_rules! put_back {
    ($Defect:ident) => {
        $crate::put_back!($Defect, env!("CARGO_PKG_NAME"));
    };
    ($Defect:ident, $home:expr) => {
        #[cfg(test)]
        std::thread_local! {
            static PUT_BACK: std::cell::Cell<Option<$Defect>> = const { std::cell::Cell::new(None) };
        }

        #[cfg(all(put_back, not(test)))]
        static SWITCH: $crate::put_back::Switch = $crate::put_back::Switch::new($home);

        /// Whether a test has put `defect` back.
        #[inline(always)]
        pub(crate) fn is(defect: $Defect) -> bool {
            #[cfg(test)]
            return PUT_BACK.get() == Some(defect);
            #[cfg(all(put_back, not(test)))]
            return SWITCH.is(defect as u32, &defect);
            #[cfg(not(any(test, put_back)))]
            {
                let _ = defect;
                false
            }
        }

        /// Runs `f` with `defect` put back on this thread: a model's threads are all on one.
        #[cfg(test)]
        #[cfg_attr(shuttle, allow(dead_code, reason = "not every crate has controls there"))]
        pub(crate) fn with<R>(defect: $Defect, f: impl FnOnce() -> R) -> R {
            struct Mend;
            impl Drop for Mend {
                fn drop(&mut self) {
                    PUT_BACK.set(None);
                }
            }
            PUT_BACK.set(Some(defect));
            let _mend = Mend;
            f()
        }
    };
}

/// Makes, for an enum of defects whose values are bits of `$bits`, `Defects`: those in force in one driver. Outside the calling crate's tests there
/// are none: `has` is the constant `false` there.
#[doc(hidden)]
#[macro_export]
macro_rules! defects {
    ($Defect:ident as $bits:ty) => {
        /// The hazards in force.
        #[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct Defects(#[cfg(test)] $bits);

        impl Defects {
            /// Whether a hazard is in force.
            #[cfg(all(put_back, not(test)))]
            #[inline(always)]
            pub(crate) fn has(self, defect: $Defect) -> bool {
                static SWITCH: $crate::put_back::Switch = $crate::put_back::Switch::new(env!("CARGO_PKG_NAME"));
                SWITCH.is((defect as $bits).trailing_zeros(), &defect)
            }

            /// Whether a hazard is in force.
            #[cfg(not(all(put_back, not(test))))]
            #[inline(always)]
            pub(crate) const fn has(self, defect: $Defect) -> bool {
                #[cfg(test)]
                return self.0 & defect as $bits != 0;
                #[cfg(not(test))]
                {
                    let _ = (self, defect);
                    false
                }
            }

            /// None: the driver as it is.
            #[cfg(test)]
            pub(crate) const fn none() -> Self {
                Self(0)
            }

            /// One hazard.
            #[cfg(test)]
            #[cfg_attr(loom, allow(dead_code, reason = "the tests under loom put none back"))]
            pub(crate) const fn one(defect: $Defect) -> Self {
                Self(defect as $bits)
            }
        }
    };
}
