// The streaming steps of a Conformer and of a Llama decoder for a processor, one thread: see __init__.py. All numbers are float32,
// but for the weights of linear layers that have a scale: those are int8, and what they are multiplied with is rounded to int8, row by row.
//
// What a row of a batch gets does not depend on the other rows, nor on how many there are, to the bit: every sum is taken in one order,
// whatever the rows that share its weights. Do not compile it with -ffast-math, which would let the compiler choose the order.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__) || defined(__AVXVNNI__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define UNSIGNED_BY_SIGNED  // products of bytes: what rows are rounded to is moved to 1 … 255, and taken off again
#endif

namespace {

typedef float float32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float float32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float float32x4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t int32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t int8x16 __attribute__((vector_size(16), aligned(1), may_alias));

#ifdef __AVX512F__
constexpr int WIDE = 4;  // vectors of a block of weights: with 6 rows, the sums fill 24 of 32 registers
#else
constexpr int WIDE = 1;  // a vector is two registers of AVX2 or four of NEON: the sums of 6 rows fill 12 of 16, or 24 of 32
#endif
constexpr int64_t BLOCK = 16 * WIDE;  // columns
constexpr int ROWS = 6;
constexpr int64_t AHEAD = 8192;  // bytes that weights are asked for ahead, or half the bandwidth is lost (tools/bench/LOG.md)

inline int64_t up(int64_t n) { return (n + 15) / 16 * 16; }

inline float32x16 load(const float* p, int64_t n) {
  if (n >= 16) return *(const float32x16*)p;
  float32x16 v = {};
  std::memcpy(&v, p, sizeof(float) * n);
  return v;
}

inline void store(float* p, float32x16 v, int64_t n) {
  if (n >= 16) *(float32x16*)p = v;
  else std::memcpy(p, &v, sizeof(float) * n);
}

inline float sum(float32x16 v) {
  float32x8 eight[2];
  std::memcpy(eight, &v, sizeof eight);
  const float32x8 halves = eight[0] + eight[1];
  float32x4 four[2];
  std::memcpy(four, &halves, sizeof four);
  const float32x4 last = four[0] + four[1];
  return (last[0] + last[2]) + (last[1] + last[3]);
}

// c + a · b. Explicitly one operation where a compiler may take two for a short sum (GCC's avoid-fma-max-bits), and one for a long one: a
// row would get other bits alone than among others.
inline float32x16 fused(float32x16 a, float32x16 b, float32x16 c) {
#ifdef __AVX512F__
  return (float32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return c + a * b;
#endif
}

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, int32x16{__VA_ARGS__})
#endif

// The sum of each of 16 vectors, each as ``sum`` takes it, to the bit.
inline float32x16 sums(float32x16 (&v)[16]) {
  for (int j = 0; j < 8; ++j)
    v[j] = PICK(v[j], v[j + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICK(v[j], v[j + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  for (int j = 0; j < 4; ++j)
    v[j] = PICK(v[j], v[j + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
           PICK(v[j], v[j + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int j = 0; j < 2; ++j)
    v[j] = PICK(v[j], v[j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           PICK(v[j], v[j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  return PICK(v[0], v[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         PICK(v[0], v[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

// e^x to 2 units in the last place; 0 below -87.3, never infinite; NaN stays NaN. Cephes' polynomial (Moshier, expf).
inline float32x16 exponential(float32x16 x) {
  const float32x16 zero = {};
  const float32x16 low = zero - 87.33654f, high = zero + 88.37626f;
  const int32x16 below = x < low;
  x = x > high ? high : (below ? low : x);
  const float32x16 t = x * 1.44269504088896341f;
  const int32x16 n = __builtin_convertvector(t + (t < zero ? zero - 0.5f : zero + 0.5f), int32x16);
  const float32x16 f = __builtin_convertvector(n, float32x16);
  const float32x16 r = x - f * 0.693359375f + f * 2.12194440e-4f;
  float32x16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32x16 bits = (n + 127) << 23;
  float32x16 scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return below ? zero : p * scale;
}

inline float32x16 sigmoid(float32x16 x) { return 1.0f / (1.0f + exponential(-x)); }

// y (M, n) = b + x (M, k) · w (k, 16 NV): n columns of it, at most 16 NV. For each k, P lines of 64 bytes are asked for: at
// ``ask``, and ``step`` bytes further each time.
template <int M, int NV, int P>
void tile(const float* x, int64_t ldx, const float* w, int64_t ldw, const float* b, float* y, int64_t ldy, int64_t k, int64_t n,
          const char* ask, int64_t step) {
  float32x16 acc[M][NV];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < NV; ++v) acc[m][v] = b ? *(const float32x16*)(b + 16 * v) : float32x16{};
  for (int64_t i = 0; i < k; ++i) {
    float32x16 row[NV];
    for (int p = 0; p < P; ++p) __builtin_prefetch(ask + i * step + p * 64, 0, P == NV ? 0 : 2);
    for (int v = 0; v < NV; ++v) row[v] = *(const float32x16*)(w + i * ldw + 16 * v);
    for (int m = 0; m < M; ++m) {
      const float32x16 a = float32x16{} + x[m * ldx + i];
      for (int v = 0; v < NV; ++v) acc[m][v] = fused(row[v], a, acc[m][v]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < NV; ++v)
      if (n > 16 * v) store(y + m * ldy + 16 * v, acc[m][v], n - 16 * v);
}

// f(first row, how many) for m rows, at most ROWS at a time; how many is a constant.
template <class F>
void by_rows(int64_t m, F f) {
  for (int64_t first = 0; first < m; first += ROWS) {
    switch (m - first) {
      case 1: f(first, std::integral_constant<int, 1>{}); break;
      case 2: f(first, std::integral_constant<int, 2>{}); break;
      case 3: f(first, std::integral_constant<int, 3>{}); break;
      case 4: f(first, std::integral_constant<int, 4>{}); break;
      case 5: f(first, std::integral_constant<int, 5>{}); break;
      default: f(first, std::integral_constant<int, ROWS>{});
    }
  }
}

// f(vectors of a block's width), a constant, for n columns.
template <class F>
void by_width(int64_t n, F f) {
  switch (up(n) / 16) {
    case 1: f(std::integral_constant<int, 1>{}); break;
#ifdef __AVX512F__
    case 2: f(std::integral_constant<int, 2>{}); break;
    case 3: f(std::integral_constant<int, 3>{}); break;
    case 4: f(std::integral_constant<int, 4>{}); break;
#endif
  }
}

// y (m, n) = b + x (m, k) · w, of at most BLOCK columns n, of which up(n) may be read.
void block(const float* x, int64_t ldx, const float* w, int64_t ldw, const float* b, float* y, int64_t ldy, int64_t m, int64_t k,
           int64_t n) {
  by_width(n, [&](auto width) {
    constexpr int NV = decltype(width)::value;
    by_rows(m, [&](int64_t row, auto count) {
      const char* ask = (const char*)w + AHEAD;
      tile<decltype(count)::value, NV, NV>(x + row * ldx, ldx, w, ldw, b, y + row * ldy, ldy, k, n, ask, 4 * ldw);
    });
  });
}

// f(lines of 64 bytes that are asked for at a time), a constant, where a block is ``width`` lines wide and m rows share it.
template <class W, class F>
void by_share(int64_t m, W width, F f) {
  constexpr int most = W::value;
  if (m <= ROWS) f(width);
  else if (m <= 3 * ROWS) f(std::integral_constant<int, (most + 1) / 2>{});
  else f(std::integral_constant<int, 1>{});
}

// As ``block``, of float32 weights in the order in which they lie in memory, another block behind them. They come as fast as they can while
// they are asked for all the time. Of few rows, which take as long as that, those that lie AHEAD are asked for, and past the caches, in
// which all else that a step needs shall stay: they are read once. Of more, which take longer, each ROWS of them ask for a part of the block
// behind, so that its first ones need not wait for it.
void block_of_weights(const float* x, int64_t ldx, const float* w, const float* b, float* y, int64_t ldy, int64_t m, int64_t k, int64_t n) {
  by_width(n, [&](auto width) {
    by_share(m, width, [&](auto lines) {
      constexpr int NV = decltype(width)::value, P = decltype(lines)::value, PARTS = (NV + P - 1) / P;
      by_rows(m, [&](int64_t row, auto count) {
        const char* ask = (const char*)w + (m <= ROWS ? AHEAD : k * 64 * (NV + row / ROWS % PARTS * P));
        tile<decltype(count)::value, NV, P>(x + row * ldx, ldx, w, 16 * NV, b, y + row * ldy, ldy, k, n, ask, 64 * P);
      });
    });
  });
}

// To each of 16 sums, the products of the four bytes of x and the four of its lane in w.
inline int32x16 add_products(int32x16 sums, int32_t x, int32x16 w) {
#if defined(__AVX512VNNI__)
  return (int32x16)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(x), (__m512i)w);
#elif defined(__AVXVNNI__)
  __m256i half[2], weights[2];
  std::memcpy(half, &sums, sizeof half);
  std::memcpy(weights, &w, sizeof weights);
  for (int i = 0; i < 2; ++i) half[i] = _mm256_dpbusd_avx_epi32(half[i], _mm256_set1_epi32(x), weights[i]);
  std::memcpy(&sums, half, sizeof half);
  return sums;
#else
  for (int j = 0; j < 4; ++j) sums += ((w << (24 - 8 * j)) >> 24) * (int32_t)(int8_t)(x >> 8 * j);
  return sums;
#endif
}

// y (n,) = b + step · scale · sums. Not inlined: whether product and sum become one operation must not depend on the tile it is inlined in.
__attribute__((noinline)) void to_floats(const int32x16* sums, float step, const float* scale, const float* b, float* y, int64_t n) {
  const float32x16 product = __builtin_convertvector(*sums, float32x16) * step * *(const float32x16*)scale;
  store(y, b ? product + *(const float32x16*)b : product, n);
}

// y (M, n) = b + step · scale · (x (M, 4 quads) · w (quads, 16 NV, 4)): n columns of it, at most 16 NV; each sum begins with ``first``.
template <int M, int NV>
void integer_tile(const int32_t* x, int64_t ldx, const float* step, const int8_t* w, const int32_t* first, const float* scale,
                  const float* b, float* y, int64_t ldy, int64_t quads, int64_t n) {
  int32x16 acc[M][NV];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < NV; ++v) acc[m][v] = *(const int32x16*)(first + 16 * v);
  for (int64_t i = 0; i < quads; ++i, w += 64 * NV) {
    int32x16 row[NV];
    for (int v = 0; v < NV; ++v) {
      __builtin_prefetch(w + 64 * v + AHEAD);
      row[v] = *(const int32x16*)(w + 64 * v);
    }
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < NV; ++v) acc[m][v] = add_products(acc[m][v], x[m * ldx + i], row[v]);
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < NV; ++v)
      if (n > 16 * v) to_floats(&acc[m][v], step[m], scale + 16 * v, b ? b + 16 * v : nullptr, y + m * ldy + 16 * v, n - 16 * v);
}

}  // namespace

extern "C" {

struct Linear {
  const void* weight;  // blocks of (k, up to BLOCK columns) float32, the last one of up(n % BLOCK); or of (k / 4, columns, 4)
                       // int8, zeros where k is no multiple of 4
  const float* bias;  // (up(n),), or null
  const float* scale;  // (up(n),) of int8 weights; null: they are float32
  const int32_t* sums;  // (up(n),) of the int8 weights of a column
  int64_t k, n;
};

struct Norm {
  const float *weight, *bias;  // (dim,)
  float eps;
};

struct ConformerLayer {
  Norm in_norm, attention_norm, convolution_norm, inner_norm, out_norm, norm;
  Linear in_up, in_down, project, attention_out, convolution_in, convolution_out, out_up, out_down;
  const float *depthwise, *depthwise_bias;  // (before + 1 + after, dim), (dim,)
  int64_t dim, heads, before, after;
};

struct Context {  // of a layer: keys and values (B, left, dim) and frames (B, before, dim), rows that far apart
  const float* keys;
  int64_t keys_row;
  const float* values;
  int64_t values_row;
  const float* frames;
  int64_t frames_row;
};

struct LlamaLayer {
  const float *attention_norm, *feed_forward_norm;  // (dim,)
  Linear query, key, value, out, gate, up, down;
};

struct Llama {
  const LlamaLayer* layer;
  const float* norm;  // (dim,)
  const double* frequency;  // (head_dim / 2,)
  Linear output;
  int64_t layers, dim, heads, kv_heads, head_dim, slots;
  float eps;
};

}  // extern "C"

namespace {

template <class T>
T* room(std::vector<T>& held, int64_t size) {
  if ((int64_t)held.size() < size + 16) held.resize(size + 16);
  return held.data();
}

#ifdef UNSIGNED_BY_SIGNED
constexpr int32_t ZERO = 128;
#else
constexpr int32_t ZERO = 0;
#endif
constexpr float MOST = 127;

// x (k,) → bytes (up(k),), ZERO for 0 and MOST from it for the greatest; returns the step between them, NaN if not all of x is finite.
float to_bytes(const float* x, int64_t k, int8_t* bytes) {
  const float32x16 zero = {}, shift = zero + 12582912.0f;  // of which the last bit is worth 1: what is added is rounded to even
  float32x16 most = zero, wrong = zero;
  for (int64_t i = 0; i < k; i += 16) {
    const float32x16 v = load(x + i, k - i), size = v < zero ? -v : v;
    most = size > most ? size : most;
    wrong += v * 0.0f;
  }
  float greatest = 1e-12f;
  for (int i = 0; i < 16; ++i) greatest = most[i] > greatest ? most[i] : greatest;
  const float scale = MOST / greatest;
  for (int64_t i = 0; i < k; i += 16) {
    const float32x16 rounded = load(x + i, k - i) * scale + shift - shift;
    *(int8x16*)(bytes + i) = __builtin_convertvector(__builtin_convertvector(rounded, int32x16) + ZERO, int8x16);
  }
  return greatest / MOST + sum(wrong);
}

// As reallm_linear, of int8 weights. Integers are summed, without an error.
void integer_linear(const Linear& linear, const float* x, int64_t m, float* y) {
  thread_local std::vector<int32_t> bytes_, first_;
  thread_local std::vector<float> steps_;
  const int64_t k = linear.k, n = linear.n, quads = (k + 3) / 4, ldx = up(k) / 4;
  int32_t *bytes = room(bytes_, m * ldx), *first = room(first_, up(n));
  float* steps = room(steps_, m);
  for (int64_t row = 0; row < m; ++row) steps[row] = to_bytes(x + row * k, k, (int8_t*)(bytes + row * ldx));
  for (int64_t i = 0; i < up(n); ++i) first[i] = -ZERO * linear.sums[i];
  for (int64_t at = 0; at < n; at += BLOCK) {
    const int8_t* w = (const int8_t*)linear.weight + at * quads * 4;
    const float *scale = linear.scale + at, *bias = linear.bias ? linear.bias + at : nullptr;
    by_width(n - at < BLOCK ? n - at : BLOCK, [&](auto width) {
      by_rows(m, [&](int64_t row, auto count) {
        integer_tile<decltype(count)::value, decltype(width)::value>(bytes + row * ldx, ldx, steps + row, w, first + at, scale, bias,
                                                                     y + row * n + at, n, quads, n - at);
      });
    });
  }
}

}  // namespace

extern "C" {

int64_t reallm_block() { return BLOCK; }

// x (m, k) → y (m, n).
void reallm_linear(const Linear* linear, const float* x, int64_t m, float* y) {
  const int64_t k = linear->k, n = linear->n;
  if (linear->scale) return integer_linear(*linear, x, m, y);
  for (int64_t at = 0; at < n; at += BLOCK) {
    const int64_t width = n - at < BLOCK ? n - at : BLOCK;
    block_of_weights(x, k, (const float*)linear->weight + at * k, linear->bias ? linear->bias + at : nullptr, y + at, n, m, k, width);
  }
}

}  // extern "C"

namespace {

template <class F>
void each(float* y, const float* x, int64_t n, F f) {
  for (int64_t i = 0; i < n; i += 16) store(y + i, f(load(x + i, n - i)), n - i);
}

void silu(float* x, int64_t n) {
  each(x, x, n, [](float32x16 v) { return v * sigmoid(v); });
}

// x += factor · y
void add(float* x, const float* y, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i += 16) store(x + i, load(x + i, n - i) + factor * load(y + i, n - i), n - i);
}

void layer_norm(const Norm& norm, const float* x, float* y, int64_t m, int64_t dim) {
  for (; m > 0; --m, x += dim, y += dim) {
    float32x16 total = {}, squares = {};
    for (int64_t i = 0; i < dim; i += 16) total += load(x + i, dim - i);
    const float mean = sum(total) / dim;
    for (int64_t i = 0; i < dim; i += 16) {
      float32x16 d = load(x + i, dim - i) - mean;
      if (dim - i < 16) d = load((const float*)&d, dim - i);  // zeros beyond
      squares += d * d;
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / dim + norm.eps);
    for (int64_t i = 0; i < dim; i += 16)
      store(y + i, (load(x + i, dim - i) - mean) * scale * load(norm.weight + i, dim - i) + load(norm.bias + i, dim - i), dim - i);
  }
}

void rms_norm(const float* weight, float eps, const float* x, float* y, int64_t m, int64_t dim) {
  for (; m > 0; --m, x += dim, y += dim) {
    float32x16 squares = {};
    for (int64_t i = 0; i < dim; i += 16) squares += load(x + i, dim - i) * load(x + i, dim - i);
    const float scale = 1.0f / std::sqrt(sum(squares) / dim + eps);
    for (int64_t i = 0; i < dim; i += 16) store(y + i, load(x + i, dim - i) * scale * load(weight + i, dim - i), dim - i);
  }
}

// y (heads, 2 half) = x turned by the angles and multiplied.
void rotate(const float* x, float* y, int64_t heads, int64_t half, const float* cos, const float* sin, float factor) {
  for (; heads > 0; --heads, x += 2 * half, y += 2 * half)
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[half + i];
      y[i] = (a * cos[i] - b * sin[i]) * factor;
      y[half + i] = (b * cos[i] + a * sin[i]) * factor;
    }
}

// Softmax of n scores, padded with minus infinity to up(n), in place.
void softmax(float* x, int64_t n) {
  float32x16 most = *(const float32x16*)x;
  for (int64_t i = 16; i < n; i += 16) {
    const float32x16 v = *(const float32x16*)(x + i);
    most = v > most ? v : most;
  }
  float greatest = most[0], total = 0;
  for (int i = 1; i < 16; ++i) greatest = most[i] > greatest ? most[i] : greatest;
  float32x16 sums = {};
  for (int64_t i = 0; i < n; i += 16) sums += *(float32x16*)(x + i) = exponential(*(const float32x16*)(x + i) - greatest);
  total = 1.0f / sum(sums);
  for (int64_t i = 0; i < n; i += 16) *(float32x16*)(x + i) *= total;
}

float dot(const float* a, const float* b, int64_t n) {
  float32x16 total = {};
  for (int64_t i = 0; i < n; i += 16) total = fused(load(a + i, n - i), load(b + i, n - i), total);
  return sum(total);
}

// y (m,) = a (n,) · each row of b (m, n), each as ``dot`` takes it, to the bit.
void dots(const float* a, const float* b, float* y, int64_t m, int64_t n) {
  int64_t j = 0;
  for (; j + 16 <= m; j += 16) {
    float32x16 products[16] = {};
    for (int64_t i = 0; i < n; i += 16) {
      const float32x16 of_a = load(a + i, n - i);
      for (int r = 0; r < 16; ++r) products[r] = fused(of_a, load(b + (j + r) * n + i, n - i), products[r]);
    }
    *(float32x16*)(y + j) = sums(products);
  }
  for (; j < m; ++j) y[j] = dot(a, b + j * n, n);
}

struct Half {
  std::vector<float> normed, hidden, out;
};

// x (m, dim) += 0.5 · down(silu(up(norm(x))))
void half_feed_forward(const Norm& norm, const Linear& up_, const Linear& down, float* x, int64_t m, int64_t dim, Half& at) {
  float *normed = room(at.normed, m * dim), *hidden = room(at.hidden, m * up_.n), *out = room(at.out, m * dim);
  layer_norm(norm, x, normed, m, dim);
  reallm_linear(&up_, normed, m, hidden);
  silu(hidden, m * up_.n);
  reallm_linear(&down, hidden, m, out);
  add(x, out, m * dim, 0.5f);
}

// One chunk of S frames, look-ahead among them, of B rows, through one layer: x (B, S, dim) → y, which may be x. Rows without a valid frame cost nothing: zeros come out, and are what their context goes on with.
//
// valid (B, S); mask (B, S or 1, left + S), by its strides, true = is attended to. all_keys, all_values (B, left + S, dim) and all_frames
// (B, before + S + after, dim) become context and chunk; 16 floats behind all_values may be read. cos, sin (left + S, half a head).
void conformer_layer(const ConformerLayer& l, const Context& context, int64_t batch, int64_t span, int64_t left, const float* x, float* y,
                     const uint8_t* valid, const uint8_t* mask, int64_t mask_row, int64_t mask_query, float* all_keys, float* all_values,
                     float* all_frames, const float* cos, const float* sin) {
  thread_local Half at;
  thread_local std::vector<float> taken_, projected_, turned_, packed_, scores_, attended_;
  thread_local std::vector<int64_t> heard;  // rows that have a valid frame
  const int64_t dim = l.dim, head = dim / l.heads, half = head / 2, count = left + span, most = up(count);
  const int64_t taps = l.before + 1 + l.after, length = taps - 1 + span;
  heard.clear();
  for (int64_t row = 0; row < batch; ++row) {
    float *row_keys = all_keys + row * count * dim, *row_values = all_values + row * count * dim;
    float* sequence = all_frames + row * length * dim;
    std::memcpy(row_keys, context.keys + row * context.keys_row, sizeof(float) * left * dim);
    std::memcpy(row_values, context.values + row * context.values_row, sizeof(float) * left * dim);
    std::memcpy(sequence, context.frames + row * context.frames_row, sizeof(float) * l.before * dim);
    if (std::memchr(valid + row * span, 1, span)) {
      heard.push_back(row);
    } else {
      std::memset(row_keys + left * dim, 0, sizeof(float) * span * dim);
      std::memset(row_values + left * dim, 0, sizeof(float) * span * dim);
      std::memset(sequence + l.before * dim, 0, sizeof(float) * (span + l.after) * dim);
      std::memset(y + row * span * dim, 0, sizeof(float) * span * dim);
    }
  }
  const int64_t rows = heard.size(), m = rows * span;
  float* h = room(taken_, m * dim);
  for (int64_t i = 0; i < rows; ++i) std::memcpy(h + i * span * dim, x + heard[i] * span * dim, sizeof(float) * span * dim);
  half_feed_forward(l.in_norm, l.in_up, l.in_down, h, m, dim, at);

  float *projected = room(projected_, m * 3 * dim), *attended = room(attended_, m * dim), *turned = room(turned_, count * dim);
  float *packed = room(packed_, (count + BLOCK) * head), *scores = room(scores_, span * most);
  layer_norm(l.attention_norm, h, at.normed.data(), m, dim);
  reallm_linear(&l.project, at.normed.data(), m, projected);
  const float factor = 1.0f / std::sqrt((float)head);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = heard[i];
    float *row_keys = all_keys + row * count * dim, *row_values = all_values + row * count * dim;
    float* own = projected + i * span * 3 * dim;
    for (int64_t t = 0; t < span; ++t) {
      std::memcpy(row_keys + (left + t) * dim, own + t * 3 * dim + dim, sizeof(float) * dim);
      std::memcpy(row_values + (left + t) * dim, own + t * 3 * dim + 2 * dim, sizeof(float) * dim);
      rotate(own + t * 3 * dim, own + t * 3 * dim, l.heads, half, cos + (left + t) * half, sin + (left + t) * half, factor);
    }
    for (int64_t t = 0; t < count; ++t) rotate(row_keys + t * dim, turned + t * dim, l.heads, half, cos + t * half, sin + t * half, 1.0f);
    const uint8_t* row_mask = mask + row * mask_row;
    for (int64_t n = 0; n < l.heads; ++n) {
      for (int64_t begin = 0; begin < count; begin += BLOCK) {
        const int64_t keys_here = count - begin < BLOCK ? count - begin : BLOCK, width = up(keys_here);
        for (int64_t t = 0; t < keys_here; ++t)
          for (int64_t e = 0; e < head; ++e) packed[e * width + t] = turned[(begin + t) * dim + n * head + e];
        for (int64_t e = 0; e < head; ++e)
          for (int64_t t = keys_here; t < width; ++t) packed[e * width + t] = 0;
        block(own + n * head, 3 * dim, packed, width, nullptr, scores + begin, most, span, head, keys_here);
      }
      for (int64_t t = 0; t < span; ++t) {
        float* s = scores + t * most;
        for (int64_t j = 0; j < count; ++j)
          if (!row_mask[t * mask_query + j]) s[j] = -INFINITY;
        for (int64_t j = count; j < most; ++j) s[j] = -INFINITY;
        softmax(s, count);
      }
      for (int64_t e = 0; e < head; e += BLOCK)
        block(scores, most, row_values + n * head + e, dim, nullptr, attended + i * span * dim + n * head + e, dim, span, count,
              head - e < BLOCK ? head - e : BLOCK);
    }
  }
  reallm_linear(&l.attention_out, attended, m, at.out.data());
  add(h, at.out.data(), m * dim, 1.0f);

  layer_norm(l.convolution_norm, h, at.normed.data(), m, dim);
  reallm_linear(&l.convolution_in, at.normed.data(), m, projected);
  for (int64_t n = 0; n < rows; ++n) {
    const int64_t row = heard[n];
    float* sequence = all_frames + row * length * dim;
    std::memset(sequence + (l.before + span) * dim, 0, sizeof(float) * l.after * dim);
    for (int64_t t = 0; t < span; ++t) {
      const float* own = projected + (n * span + t) * 2 * dim;
      float* gated = sequence + (l.before + t) * dim;
      const float inside = valid[row * span + t] ? 1.0f : 0.0f;
      for (int64_t i = 0; i < dim; i += 16)
        store(gated + i, load(own + i, dim - i) * sigmoid(load(own + dim + i, dim - i)) * inside, dim - i);
    }
    for (int64_t t = 0; t < span; ++t)
      for (int64_t i = 0; i < dim; i += 16) {
        float32x16 total = load(l.depthwise_bias + i, dim - i);
        for (int64_t j = 0; j < taps; ++j) total += load(l.depthwise + j * dim + i, dim - i) * load(sequence + (t + j) * dim + i, dim - i);
        store(attended + (n * span + t) * dim + i, total, dim - i);
      }
  }
  layer_norm(l.inner_norm, attended, at.normed.data(), m, dim);
  silu(at.normed.data(), m * dim);
  reallm_linear(&l.convolution_out, at.normed.data(), m, at.out.data());
  add(h, at.out.data(), m * dim, 1.0f);

  half_feed_forward(l.out_norm, l.out_up, l.out_down, h, m, dim, at);
  for (int64_t i = 0; i < rows; ++i) layer_norm(l.norm, h + i * span * dim, y + heard[i] * span * dim, span, dim);
}

}  // namespace

extern "C" {

// As conformer_layer, through N layers of one size, one after the other: y of the last. context is of each; all_keys, all_values and
// all_frames have the layers before the rows.
void reallm_conformer(const ConformerLayer* const* layer, const Context* context, int64_t layers, int64_t batch, int64_t span, int64_t left,
                      const float* x, float* y, const uint8_t* valid, const uint8_t* mask, int64_t mask_row, int64_t mask_query,
                      float* all_keys, float* all_values, float* all_frames, const float* cos, const float* sin) {
  for (int64_t n = 0; n < layers; ++n) {
    const ConformerLayer& l = *layer[n];
    const int64_t of_keys = batch * (left + span) * l.dim, of_frames = batch * (l.before + span + l.after) * l.dim;
    conformer_layer(l, context[n], batch, span, left, n ? y : x, y, valid, mask, mask_row, mask_query, all_keys + n * of_keys,
                    all_values + n * of_keys, all_frames + n * of_frames, cos, sin);
  }
}

// The next K positions of B rows: x (B, K, dim), position (B,) of the first → logits (B, K, V). active (B,), or null: rows that are not
// active cost nothing, and their logits are zeros. keys, values: of each layer the rings (B, kv_heads, slots, head_dim), in which position
// p lies in slot p mod slots. new_keys, new_values: of each layer (B, kv_heads, K, head_dim), written to in place of the rings; or null,
// where K is 1.
void reallm_llama(const Llama* llama, int64_t batch, int64_t ahead, const float* x, const uint8_t* active, const int64_t* position,
                  float* const* keys, float* const* values, float* const* new_keys, float* const* new_values, float* logits) {
  thread_local std::vector<float> hidden_, normed_, query_, key_, attended_, out_, gate_, up_, angles_, scores_;
  thread_local std::vector<float> logits_;
  thread_local std::vector<int64_t> asked;
  asked.clear();
  for (int64_t row = 0; row < batch; ++row)
    if (!active || active[row]) asked.push_back(row);
  const Llama& l = *llama;
  const int64_t dim = l.dim, head = l.head_dim, half = head / 2, whole = head / 16 * 16, of_keys = l.kv_heads * head;
  const int64_t inner = l.layer[0].gate.n, rows = asked.size(), m = rows * ahead, share = l.heads / l.kv_heads, most = up(l.slots + ahead);
  float *h = room(hidden_, m * dim), *normed = room(normed_, m * dim), *query = room(query_, m * dim);
  float *key = room(key_, 2 * m * of_keys), *value = key + m * of_keys, *attended = room(attended_, m * dim);
  float *out = room(out_, m * dim), *gate = room(gate_, m * inner), *raised = room(up_, m * inner);
  float *angles = room(angles_, m * head), *scores = room(scores_, ahead * most);
  for (int64_t i = 0; i < rows; ++i) std::memcpy(h + i * ahead * dim, x + asked[i] * ahead * dim, sizeof(float) * ahead * dim);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < half; ++j) {  // in double: in float an endless stream loses them after some hours
      const double angle = (position[asked[i / ahead]] + i % ahead) * l.frequency[j];
      angles[i * head + j] = (float)std::cos(angle), angles[i * head + half + j] = (float)std::sin(angle);
    }
  const float factor = 1.0f / std::sqrt((float)head);
  for (int64_t n = 0; n < l.layers; ++n) {
    const LlamaLayer& layer = l.layer[n];
    rms_norm(layer.attention_norm, l.eps, h, normed, m, dim);
    reallm_linear(&layer.query, normed, m, query);
    reallm_linear(&layer.key, normed, m, key);
    reallm_linear(&layer.value, normed, m, value);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = asked[r], first = position[row], seen = first < l.slots ? first : l.slots;
      for (int64_t g = 0; g < l.kv_heads; ++g) {
        const int64_t of_row = row * l.kv_heads + g, slot = first % l.slots;
        float *ring_keys = keys[n] + of_row * l.slots * head, *ring_values = values[n] + of_row * l.slots * head;
        float* own_keys = new_keys ? new_keys[n] + of_row * ahead * head : ring_keys + slot * head;
        float* own_values = new_values ? new_values[n] + of_row * ahead * head : ring_values + slot * head;
        for (int64_t t = 0; t < ahead; ++t) {
          const int64_t i = r * ahead + t;
          const float *cos = angles + i * head, *sin = cos + half;
          rotate(query + i * dim + g * share * head, query + i * dim + g * share * head, share, half, cos, sin, factor);
          rotate(key + i * of_keys + g * head, own_keys + t * head, 1, half, cos, sin, 1.0f);
          std::memcpy(own_values + t * head, value + i * of_keys + g * head, sizeof(float) * head);
        }
        for (int64_t q = g * share; q < (g + 1) * share; ++q) {
          const int64_t at_head = r * ahead * dim + q * head;
          for (int64_t t = 0; t < ahead; ++t) {
            float* s = scores + t * most;
            const float* own = query + at_head + t * dim;
            dots(own, ring_keys, s, seen, head);
            dots(own, own_keys, s + seen, t + 1, head);
            for (int64_t j = seen + t + 1; j < most; ++j) s[j] = -INFINITY;
            for (int64_t j = 0; j <= t; ++j)
              if (first + j >= l.slots) s[(first + j) % l.slots] = -INFINITY;  // gone from its window
            softmax(s, seen + ahead);
          }
          for (int64_t e = 0; e < whole; e += BLOCK) {
            const int64_t width = whole - e < BLOCK ? whole - e : BLOCK;
            float* y = attended + at_head + e;
            block(scores, most, ring_values + e, head, nullptr, y, dim, ahead, seen, width);
            for (int64_t t = 0; t < ahead; ++t)
              block(scores + t * most + seen, most, own_values + e, head, y + t * dim, y + t * dim, dim, 1, t + 1, width);
          }
          if (whole < head)  // apart, since what lies behind the last ring is not to be read
            for (int64_t t = 0; t < ahead; ++t) {
              float32x16 total = {};
              for (int64_t j = 0; j < seen; ++j) total += scores[t * most + j] * load(ring_values + j * head + whole, head - whole);
              for (int64_t j = 0; j <= t; ++j) total += scores[t * most + seen + j] * load(own_values + j * head + whole, head - whole);
              store(attended + at_head + t * dim + whole, total, head - whole);
            }
        }
      }
    }
    reallm_linear(&layer.out, attended, m, out);
    add(h, out, m * dim, 1.0f);
    rms_norm(layer.feed_forward_norm, l.eps, h, normed, m, dim);
    reallm_linear(&layer.gate, normed, m, gate);
    reallm_linear(&layer.up, normed, m, raised);
    silu(gate, m * inner);
    for (int64_t i = 0; i < m * inner; ++i) gate[i] *= raised[i];
    reallm_linear(&layer.down, gate, m, out);
    add(h, out, m * dim, 1.0f);
  }
  rms_norm(l.norm, l.eps, h, normed, m, dim);
  if (rows == batch) return reallm_linear(&l.output, normed, m, logits);
  const int64_t size = ahead * l.output.n;
  float* of_asked = room(logits_, rows * size);
  reallm_linear(&l.output, normed, m, of_asked);
  std::memset(logits, 0, sizeof(float) * batch * size);
  for (int64_t i = 0; i < rows; ++i) std::memcpy(logits + asked[i] * size, of_asked + i * size, sizeof(float) * size);
}

// Of K positions that reallm_llama wrote to new_keys and new_values, the first count (B,), 0 to K, come into the rings.
void reallm_llama_accept(const Llama* llama, int64_t batch, int64_t ahead, const int64_t* position, const int64_t* count, float* const* keys,
                         float* const* values, const float* const* new_keys, const float* const* new_values) {
  const Llama& l = *llama;
  const int64_t head = l.head_dim;
  for (int64_t n = 0; n < l.layers; ++n)
    for (int64_t row = 0; row < batch; ++row)
      for (int64_t of_row = row * l.kv_heads; of_row < (row + 1) * l.kv_heads; ++of_row)
        for (int64_t t = 0; t < count[row]; ++t) {
          const int64_t to = (of_row * l.slots + (position[row] + t) % l.slots) * head, from = (of_row * ahead + t) * head;
          std::memcpy(keys[n] + to, new_keys[n] + from, sizeof(float) * head);
          std::memcpy(values[n] + to, new_values[n] + from, sizeof(float) * head);
        }
}

}  // extern "C"
