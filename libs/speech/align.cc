#include "speech/align.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "audio/resample.h"

namespace parley::speech {
namespace {

constexpr int kRateHz = 8000;
constexpr size_t kWindow = 200;  // 25 ms
constexpr size_t kHop = 80;      // 10 ms
constexpr int kHopMs = 10;
constexpr size_t kBins = 95;  // 40 Hz apart
constexpr size_t kBands = 18;
constexpr size_t kCepstra = 12;
constexpr size_t kMostFrames = 3000;
constexpr size_t kFewestFrames = 10;
constexpr double kLowestHz = 120;
constexpr float kSilence = 3.5F;  // below the loudest, in powers of ten
constexpr float kChange = 0.5F;   // weight of the changes beside the cepstra
// The n-th cepstrum weighs n to this: the fine ones tell voices apart, the coarse ones vowels. With
// all alike a quarter of the borders was off by more than 120 ms, with this 2 of 100.
constexpr double kFall = -0.8;
constexpr double kPrior = 4;  // how much is believed of the speed that is said

constexpr size_t kStatic = kCepstra + 1;  // and the energy
using Frame = std::array<float, 2 * kStatic>;

struct Tables {
  std::array<float, kWindow> window;
  std::array<std::array<float, kWindow>, kBins> cosines;
  std::array<std::array<float, kWindow>, kBins> sines;
  std::array<std::array<float, kBins>, kBands> bands;
  std::array<std::array<float, kBands>, kCepstra> dct;
};

double Mel(double hz) { return 2595 * std::log10(1 + hz / 700); }

const Tables& Get() {
  static const Tables* const tables = [] {
    auto* t = new Tables;
    for (size_t i = 0; i < kWindow; ++i) {
      const double turn = 2 * M_PI * static_cast<double>(i) / kWindow;
      t->window[i] = static_cast<float>(0.54 - 0.46 * std::cos(turn));
      for (size_t bin = 0; bin < kBins; ++bin) {
        t->cosines[bin][i] = static_cast<float>(std::cos(turn * static_cast<double>(bin)));
        t->sines[bin][i] = static_cast<float>(std::sin(turn * static_cast<double>(bin)));
      }
    }
    const double low = Mel(kLowestHz);
    const double step = (Mel(kRateHz / 2.0) - low) / (kBands + 1);
    for (size_t band = 0; band < kBands; ++band) {
      for (size_t bin = 0; bin < kBins; ++bin) {
        const double at = (Mel(40.0 * static_cast<double>(bin)) - low) / step;
        t->bands[band][bin] =
            static_cast<float>(std::max(0.0, 1 - std::abs(at - static_cast<double>(band + 1))));
      }
    }
    for (size_t k = 0; k < kCepstra; ++k) {
      for (size_t band = 0; band < kBands; ++band) {
        t->dct[k][band] = static_cast<float>(std::cos(M_PI * static_cast<double>(k + 1) *
                                                      (static_cast<double>(band) + 0.5) / kBands));
      }
    }
    return t;
  }();
  return *tables;
}

// The last of the static part is the energy in powers of ten; not yet levelled, without changes.
Frame Analyse(const int16_t* samples) {
  const Tables& t = Get();
  std::array<float, kWindow> windowed;
  for (size_t i = 0; i < kWindow; ++i) windowed[i] = t.window[i] * static_cast<float>(samples[i]);
  std::array<float, kBins> power;
  for (size_t bin = 0; bin < kBins; ++bin) {
    float re = 0;
    float im = 0;
    for (size_t i = 0; i < kWindow; ++i) {
      re += windowed[i] * t.cosines[bin][i];
      im += windowed[i] * t.sines[bin][i];
    }
    power[bin] = re * re + im * im;
  }
  std::array<float, kBands> logs;
  float all = 1;
  for (size_t band = 0; band < kBands; ++band) {
    float sum = 1;
    for (size_t bin = 0; bin < kBins; ++bin) sum += t.bands[band][bin] * power[bin];
    logs[band] = std::log10(sum);
    all += sum;
  }
  Frame frame = {};
  for (size_t k = 0; k < kCepstra; ++k) {
    for (size_t band = 0; band < kBands; ++band) frame[k] += t.dct[k][band] * logs[band];
  }
  frame[kCepstra] = std::log10(all);
  return frame;
}

struct Features {
  size_t skipped = 0;  // frames of silence before the first
  std::vector<Frame> frames;
};

// Voices differ in timbre and level: each dimension gets mean 0 and a deviation of its weight over
// the first `reach` frames, the part that both are sure to say. Then the changes are taken.
void Level(std::vector<Frame>& frames, size_t reach) {
  reach = std::clamp(reach, kFewestFrames, frames.size());
  for (size_t k = 0; k < kStatic; ++k) {
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < reach; ++i) {
      sum += frames[i][k];
      squares += static_cast<double>(frames[i][k]) * frames[i][k];
    }
    const double mean = sum / static_cast<double>(reach);
    const double deviation =
        std::sqrt(std::max(squares / static_cast<double>(reach) - mean * mean, 1e-6));
    const double weight = k == kCepstra ? 1 : std::pow(static_cast<double>(k + 1), kFall);
    for (Frame& frame : frames)
      frame[k] = static_cast<float>((frame[k] - mean) / deviation * weight);
    const auto at = [&](size_t i, ptrdiff_t by) {
      const auto index = std::clamp<ptrdiff_t>(static_cast<ptrdiff_t>(i) + by, 0,
                                               static_cast<ptrdiff_t>(frames.size()) - 1);
      return frames[static_cast<size_t>(index)][k];
    };
    for (size_t i = 0; i < frames.size(); ++i) {
      frames[i][kStatic + k] = kChange * ((at(i, 1) - at(i, -1)) + 2 * (at(i, 2) - at(i, -2)));
    }
  }
}

Features FeaturesOf(const Speech& speech) {
  Features out;
  const auto resampled = audio::Resample(speech.samples, speech.rate_hz, kRateHz);
  if (!resampled.ok()) return out;
  for (size_t at = 0; at + kWindow <= resampled->size() && out.frames.size() < kMostFrames;
       at += kHop) {
    out.frames.push_back(Analyse(resampled->data() + at));
  }
  float loudest = 0;
  for (const Frame& frame : out.frames) loudest = std::max(loudest, frame[kCepstra]);
  while (out.skipped < out.frames.size() &&
         out.frames[out.skipped][kCepstra] < loudest - kSilence) {
    ++out.skipped;
  }
  out.frames.erase(out.frames.begin(),
                   out.frames.begin() + static_cast<std::ptrdiff_t>(out.skipped));
  return out;
}

float Distance(const Frame& a, const Frame& b) {
  float sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
  return std::sqrt(sum);
}

// How the alignment goes on: so many frames of what is heard and of the reference, at a cost.
struct Step {
  size_t heard;
  size_t reference;
  float cost;
};
constexpr std::array<Step, 5> kSteps = {
    {{1, 1, 2}, {1, 2, 3}, {2, 1, 3}, {1, 3, 4.3F}, {3, 1, 4.3F}}};

// For each frame of `reference` up to the end of `heard`, the frame of `heard` where it begins.
std::vector<size_t> Warp(const std::vector<Frame>& reference, const std::vector<Frame>& heard,
                         double slower) {
  const size_t columns = reference.size();
  const size_t rows = heard.size();
  constexpr float kFar = std::numeric_limits<float>::max();
  std::vector<float> costs(rows * columns, kFar);  // of two frames, where paths may come
  std::vector<float> sums(rows * columns, kFar);
  std::vector<uint8_t> steps(rows * columns, 0);
  for (size_t i = 0; i < rows; ++i) {
    const size_t low = i / 2 < 5 ? 0 : i / 2 - 5;
    const size_t high = std::min(columns, i * 2 + 6);
    for (size_t j = low; j < high; ++j) {
      const size_t at = i * columns + j;
      costs[at] = Distance(heard[i], reference[j]);
      if (i == 0 && j == 0) sums[at] = costs[at];
      for (size_t k = 0; k < kSteps.size(); ++k) {
        const Step& step = kSteps[k];
        if (i < step.heard || j < step.reference) continue;
        const float before = sums[(i - step.heard) * columns + j - step.reference];
        if (before == kFar) continue;
        float cost = costs[at];
        if (step.heard != step.reference) {
          const float middle =
              costs[(i - (step.heard > 1 ? 1 : 0)) * columns + j - (step.reference > 1 ? 1 : 0)];
          if (middle != kFar) cost = (cost + middle) / 2;
        }
        if (before + step.cost * cost >= sums[at]) continue;
        sums[at] = before + step.cost * cost;
        steps[at] = static_cast<uint8_t>(k);
      }
    }
  }
  // Nobody says the same in less than half or more than twice the time.
  size_t end = 0;
  double best = std::numeric_limits<double>::max();
  for (size_t j = (rows - 1) / 2; j < std::min(columns, rows * 2); ++j) {
    const float sum = sums[(rows - 1) * columns + j];
    if (sum == kFar) continue;
    double mean = sum / static_cast<double>(rows + j);
    if (slower > 0) {
      const double off = std::log(static_cast<double>(j + 1) * slower / static_cast<double>(rows));
      mean *= 1 + kPrior * off * off;
    }
    if (mean >= best) continue;
    best = mean;
    end = j;
  }
  if (best == std::numeric_limits<double>::max()) return {};
  std::vector<size_t> begins(end + 1, 0);
  size_t i = rows - 1;
  for (size_t j = end; j > 0 && i > 0;) {
    const Step& step = kSteps[steps[i * columns + j]];
    if (i < step.heard || j < step.reference) break;
    // Frames that a step passes over begin where it ends.
    for (size_t passed = 0; passed < step.reference; ++passed) begins[j - passed] = i;
    i -= step.heard;
    j -= step.reference;
  }
  return begins;
}

}  // namespace

std::vector<int32_t> AlignWords(const Speech& reference, const std::vector<WordTime>& words,
                                const Speech& heard, double slower) {
  Features said = FeaturesOf(reference);
  Features got = FeaturesOf(heard);
  if (said.frames.size() < kFewestFrames || got.frames.size() < kFewestFrames) return {};
  Level(said.frames, slower > 0
                         ? static_cast<size_t>(static_cast<double>(got.frames.size()) / slower)
                         : got.frames.size());
  Level(got.frames, slower > 0 ? got.frames.size() : said.frames.size());
  const std::vector<size_t> begins = Warp(said.frames, got.frames, slower);
  std::vector<int32_t> starts;
  for (const WordTime& word : words) {
    const auto frame =
        static_cast<int64_t>(word.start_ms / kHopMs) - static_cast<int64_t>(said.skipped);
    const auto at = static_cast<size_t>(std::max<int64_t>(frame, 0));
    if (at >= begins.size()) break;
    starts.push_back(static_cast<int32_t>((begins[at] + got.skipped) * kHopMs));
  }
  return starts;
}

}  // namespace parley::speech
