// How long answers took, turn by turn: a stacked bar each.

const kParts = [
  ['endpointing_ms', 'end of turn', '#7a8ca3'],
  ['transcript_ms', 'transcript', '#4f81bd'],
  ['llm_ms', 'model', '#c08b3e'],
  ['tts_ms', 'voice', '#5f9e6e'],
  ['output_ms', 'out', '#a3628f'],
];
const kBars = 20;
const kSvg = 'http://www.w3.org/2000/svg';

function shape(name, attributes, parent) {
  const element = document.createElementNS(kSvg, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

export class LatencyChart {
  constructor(place) {
    this.place = place;
    this.turns = [];
    const legend = document.createElement('ul');
    for (const [, label, color] of kParts) {
      const item = document.createElement('li');
      const mark = document.createElement('i');
      mark.style.background = color;
      item.append(mark, label);
      legend.append(item);
    }
    this.svg = shape('svg', {viewBox: '0 0 400 128', preserveAspectRatio: 'none', role: 'img'}, place);
    place.append(legend);
  }

  clear() {
    this.turns = [];
    this.draw();
  }

  add(turn) {
    if (turn.interrupted) return; // nothing was heard of it
    this.turns = [...this.turns, turn].slice(-kBars);
    this.draw();
  }

  draw() {
    this.svg.replaceChildren();
    const last = this.turns.at(-1);
    this.svg.setAttribute('aria-label', last ? `${this.turns.length} answers, the last after ${Math.round(last.total_ms)} ms` : 'no answers yet');
    const highest = Math.max(500, ...this.turns.map((turn) => turn.total_ms));
    const width = 400 / kBars;
    this.turns.forEach((turn, i) => {
      let top = 116;
      for (const [part, label, color] of kParts) {
        const height = Math.max(0, turn[part]) / highest * 100;
        top -= height;
        const bar = shape('rect', {x: i * width + 2, y: top, width: width - 4, height, fill: color}, this.svg);
        shape('title', {}, bar).textContent = `${label}: ${Math.round(turn[part])} ms of ${Math.round(turn.total_ms)} ms`;
      }
      const label = shape('text', {
        x: i * width + width / 2, y: 126, 'text-anchor': 'middle', 'font-size': 8, fill: 'currentColor'}, this.svg);
      label.textContent = Math.round(turn.total_ms);
    });
  }
}
