// The pocket model in the reader's page: a small OPT's forward pass, from this site's files alone.
// Zhang et al. 2022 (arXiv:2205.01068), as transformers' OPTForCausalLM computes it, in float32.
// A matrix has a row for each output, as in PyTorch; activations have a row for each token.

/** A file of the site. */
export async function get(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer;
}

/** The model of a folder: config.json, tokenizer.json and model.safetensors in float16. */
export async function load(folder) {
  const [config, tokenizer, file] = await Promise.all([
    get(`${folder}/config.json`).then((a) => a.json()),
    get(`${folder}/tokenizer.json`).then((a) => a.json()),
    get(`${folder}/model.safetensors`).then((a) => a.arrayBuffer()),
  ]);
  return { config, vocabulary: tokenizer.model.vocab, weights: tensors(file) };
}

/** The model that a file's differences make of this one: a student of it. */
export async function student(model, address) {
  const differences = tensors(await (await get(address)).arrayBuffer());
  const weights = Object.fromEntries(
    Object.entries(model.weights).map(([name, values]) => [
      name,
      values.map((value, i) => value + differences[name][i]),
    ]),
  );
  return { ...model, weights };
}

/**
 * The tensors of a safetensors file: eight bytes of length, a JSON header, then the numbers.
 *
 * Whole numbers of 8 bits (I8) are times the scale that the metadata has under their name.
 */
export function tensors(file) {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const text = new TextDecoder().decode(new Uint8Array(file, 8, length));
  const { __metadata__: scales, ...parts } = JSON.parse(text);
  const found = {};
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(parts)) {
    const bytes = file.slice(8 + length + from, 8 + length + to);
    if (dtype === "F32") found[name] = new Float32Array(bytes);
    else if (dtype === "F16") found[name] = Float32Array.from(new Uint16Array(bytes), half);
    else if (dtype === "I8") {
      const scale = Number(scales[name]);
      found[name] = Float32Array.from(new Int8Array(bytes), (value) => scale * value);
    } else throw new Error(`${name} is ${dtype}: F16, F32 and I8 are read`);
  }
  return found;
}

/** A number from the 16 bits of a float16. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** A text's words and marks, as the pocket tokenizer splits it. */
export const words = (text) => text.match(/\n+|[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? [];

/** A text's token ids, without the beginning-of-text token; unknown words are "<unk>". */
export const encode = ({ vocabulary }, text) =>
  words(text).map((word) => vocabulary[word] ?? vocabulary["<unk>"]);

/** Keys and values of the tokens that were read, by layer: what `read` goes on from. */
export const nothing = ({ config }) => ({
  length: 0,
  layers: Array.from({ length: config.num_hidden_layers }, () => ({ keys: [], values: [] })),
});

/**
 * Read more tokens behind those of `past`.
 *
 * Returns the log-probabilities of the token that comes next (one a word of the vocabulary), and
 * what was read until now. `past` stays as it is, so that several texts can follow one context.
 */
export function read(model, ids, past = nothing(model)) {
  const { config, weights } = model, width = config.hidden_size;
  const get = (name) => weights[`model.decoder.${name}`];
  const length = past.length + ids.length;
  if (!ids.length) throw new Error("no tokens");
  if (length > config.max_position_embeddings) throw new Error(`${length} tokens are too many`);

  let states = ids.map((id, i) => {
    const word = get("embed_tokens.weight").subarray(id * width, (id + 1) * width);
    const at = past.length + i + 2; // OPT counts positions from 2
    const place = get("embed_positions.weight").subarray(at * width, (at + 1) * width);
    return word.map((value, d) => value + place[d]);
  });
  const layers = past.layers.map((cache, number) => {
    const part = (name) => ({
      weight: get(`layers.${number}.${name}.weight`),
      bias: get(`layers.${number}.${name}.bias`),
    });
    const attended = attention(states, cache, part, config.num_attention_heads);
    states = added(states, attended.states);
    const hidden = linear(normal(states, part("final_layer_norm")), part("fc1"));
    for (const row of hidden) for (let d = 0; d < row.length; d++) row[d] = Math.max(0, row[d]);
    states = added(states, linear(hidden, part("fc2")));
    return attended.cache;
  });
  const norm = { weight: get("final_layer_norm.weight"), bias: get("final_layer_norm.bias") };
  const last = normal(states.slice(-1), norm);
  const [logits] = linear(last, { weight: get("embed_tokens.weight") });
  return { logp: logSoftmax(logits), past: { length, layers } };
}

/** Causal attention of new tokens to those before them, and the cache with the new ones in it. */
function attention(states, cache, part, heads) {
  const normed = normal(states, part("self_attn_layer_norm"));
  const [queries, ownKeys, ownValues] = ["q_proj", "k_proj", "v_proj"].map((name) =>
    linear(normed, part(`self_attn.${name}`)),
  );
  const keys = [...cache.keys, ...ownKeys], values = [...cache.values, ...ownValues];
  const width = queries[0].length, size = width / heads, scale = size ** -0.5;
  const mixed = queries.map((query, i) => {
    const seen = cache.keys.length + i + 1, out = new Float32Array(width);
    for (let from = 0; from < width; from += size) {
      const scores = new Float32Array(seen);
      for (let t = 0; t < seen; t++) {
        const key = keys[t];
        let sum = 0;
        for (let d = from; d < from + size; d++) sum += query[d] * key[d];
        scores[t] = sum * scale;
      }
      const shares = logSoftmax(scores).map(Math.exp);
      for (let t = 0; t < seen; t++) {
        const share = shares[t], value = values[t];
        for (let d = from; d < from + size; d++) out[d] += share * value[d];
      }
    }
    return out;
  });
  return { states: linear(mixed, part("self_attn.out_proj")), cache: { keys, values } };
}

/** W x + b for each row x; four rows at a time, so that a weight is read once for them. */
function linear(rows, { weight, bias }) {
  const width = rows[0].length, outputs = weight.length / width;
  const results = rows.map(() => new Float32Array(outputs));
  for (let first = 0; first < rows.length; first += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map((i) => Math.min(first + i, rows.length - 1));
    const [xa, xb, xc, xd] = [rows[a], rows[b], rows[c], rows[d]];
    for (let o = 0, w = 0; o < outputs; o++) {
      let [sa, sb, sc, sd] = [0, 0, 0, 0];
      for (let i = 0; i < width; i++, w++) {
        const value = weight[w];
        sa += value * xa[i];
        sb += value * xb[i];
        sc += value * xc[i];
        sd += value * xd[i];
      }
      const start = bias ? bias[o] : 0;
      results[a][o] = start + sa;
      results[b][o] = start + sb;
      results[c][o] = start + sc;
      results[d][o] = start + sd;
    }
  }
  return results;
}

/** Layer normalisation of each row. */
function normal(rows, { weight, bias }) {
  return rows.map((row) => {
    let mean = 0, square = 0;
    for (let d = 0; d < row.length; d++) mean += row[d] / row.length;
    for (let d = 0; d < row.length; d++) square += (row[d] - mean) ** 2 / row.length;
    const scale = 1 / Math.sqrt(square + 1e-5);
    return row.map((value, d) => (value - mean) * scale * weight[d] + bias[d]);
  });
}

const added = (rows, others) => rows.map((row, i) => row.map((value, d) => value + others[i][d]));

function logSoftmax(values) {
  let most = -Infinity, sum = 0;
  for (const value of values) if (value > most) most = value;
  for (const value of values) sum += Math.exp(value - most);
  const log = most + Math.log(sum);
  return values.map((value) => value - log);
}
