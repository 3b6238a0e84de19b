// Small pictures in a terminal, of the structs in svg.h.
#pragma once

#include <string>
#include <vector>

#include "common/cli/svg.h"

namespace llm {

/// One line per label: a bar and the value.
std::string text_plot(const BarChart& plot, int bar_width = 40);

/// One line per bin.
std::string text_plot(const Histogram& plot, int bar_width = 40);

/// Two columns per cell, shaded from light to dark ("  ", "░░", "▒▒", "▓▓", "██"); row labels on the left,
/// column labels numbered below when they do not fit.
std::string text_plot(const HeatMap& plot);

/// The curves with dots of braille (2 x 4 per character), the y axis on the left.
std::string text_plot(const LinePlot& plot, int columns = 70, int rows = 14);

/// Values as a row of ▁▂▃▄▅▆▇█.
std::string sparkline(const std::vector<double>& values);

}  // namespace llm
