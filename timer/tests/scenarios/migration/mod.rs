//! FreeBSD's callouts that move between CPUs (source 002): the three problems of the commit message, and the stress programme behind them.

mod control;
mod moves;
mod ours;
