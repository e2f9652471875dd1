//! A chart of bars in groups, as SVG, for the book.

use std::fmt::Write;

/// Bars that stand together: what each is of, and how long it is.
pub struct Group {
    pub title: String,
    pub bars: Vec<(String, f64)>,
}

const WIDTH: f64 = 860.0;
/// Where bars begin.
const LEFT: f64 = 270.0;
/// Room for the number behind the longest.
const RIGHT: f64 = 70.0;
const BAR: f64 = 16.0;
const TITLE: f64 = 28.0;
const MARGIN: f64 = 34.0;

/// All groups on one logarithmic scale. The first bar of each is ours and stands out.
pub fn draw(title: &str, groups: &[Group]) -> String {
    let values = || groups.iter().flat_map(|group| &group.bars).map(|(_, value)| value.max(1.0));
    let greatest = values().fold(10.0, f64::max);
    let length = |value: f64| value.max(1.0).ln() / greatest.ln() * (WIDTH - LEFT - RIGHT) + 2.0;
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = MARGIN + groups.len() as f64 * TITLE + bars as f64 * BAR + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, 10.0, 20.0, "start", "bold", title);
    let mut y = MARGIN;
    for group in groups {
        text(&mut svg, 10.0, y + TITLE - 9.0, "start", "bold", &group.title);
        y += TITLE;
        for (at, (name, value)) in group.bars.iter().enumerate() {
            let (weight, colour) = if at == 0 { ("bold", "#2d6a4f") } else { ("normal", "#adb5bd") };
            text(&mut svg, LEFT - 8.0, y + 11.0, "end", weight, name);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                y + 1.0,
                length(*value),
                BAR - 3.0
            );
            text(&mut svg, LEFT + length(*value) + 5.0, y + 11.0, "start", weight, &format!("{value:.0}"));
            y += BAR;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\" fill=\"#212529\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_numbers_have_longer_bars_and_names_are_escaped() {
        let bars = vec![("ours".into(), 10.0), ("A<B> & C".into(), 1000.0)];
        let svg = draw("title", &[Group { title: "case".into(), bars }]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("A&lt;B> &amp; C"));
        let widths = svg.split(" width=\"").filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        let widths: Vec<f64> = widths.collect();
        assert!(widths.len() == 2 && widths[0] < widths[1], "{widths:?}");
    }
}
