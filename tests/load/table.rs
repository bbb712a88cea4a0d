//! What was measured, beside what was hoped for.

/// How good a figure is.
#[derive(Clone, Copy)]
pub struct Goal {
    pub solid: f64,
    pub moonshot: f64,
}

/// A figure of the gateway's that should be small.
pub struct Row {
    pub what: String,
    pub measured: f64,
    /// What it is measured in: `x nginx`, `MiB`.
    pub unit: &'static str,
    pub goal: Option<Goal>,
    /// The figures behind it.
    pub from: String,
}

impl Row {
    /// The first lines of a table.
    pub fn head() -> &'static str {
        "| what | measured | solid | moonshot | reached | from |\n| --- | --- | --- | --- | --- | --- |"
    }

    /// The line.
    pub fn line(&self) -> String {
        let Self { what, measured, unit, goal, from } = self;
        let number = |figure: f64| if figure < 10.0 { format!("{figure:.2}") } else { format!("{figure:.1}") };
        let (solid, moonshot, reached) = match goal {
            None => ("".into(), "".into(), ""),
            Some(Goal { solid, moonshot }) => {
                let reached = match *measured {
                    measured if measured <= *moonshot => "moonshot",
                    measured if measured <= *solid => "solid",
                    _ => "-",
                };
                (number(*solid), number(*moonshot), reached)
            }
        };
        format!("| {what} | {} {unit} | {solid} | {moonshot} | {reached} | {from} |", number(*measured))
    }
}
