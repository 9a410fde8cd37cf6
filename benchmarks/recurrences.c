/* The loops of the kernel classes as one would write them in C: the same steps in the same order, lanes over values or
   channels, sequences and heads (or blocks of channels) shared among threads. Packed sequences all have T tokens. */

#include <math.h>
#include <stddef.h>

#define CHANNELS 64

static inline void linear_token(const float *restrict q, const float *restrict g, const float *restrict k,
                                const float *restrict v, float *restrict S, float *restrict y, float *restrict loss,
                                float *restrict p, ptrdiff_t K, ptrdiff_t V) {
    float d = 0;
    for (ptrdiff_t j = 0; j < K; j++) loss[j] = expm1f(g[j]);
    for (ptrdiff_t j = 0; j < K; j++) p[j] = q[j] + q[j] * loss[j];
    for (ptrdiff_t j = 0; j < K; j++) d += q[j] * k[j];
    for (ptrdiff_t c = 0; c < V; c++) y[c] = d * v[c];
    for (ptrdiff_t j = 0; j < K; j++) {
        float *restrict row = S + j * V;
        const float lj = loss[j], kj = k[j], pj = p[j];
        for (ptrdiff_t c = 0; c < V; c++) {
            const float s = row[c];
            y[c] += pj * s;
            row[c] = s + (lj * s + kj * v[c]);
        }
    }
}

void linear(int threads, ptrdiff_t N, ptrdiff_t T, ptrdiff_t H, ptrdiff_t K, ptrdiff_t V, const float *q,
            const float *g, const float *k, const float *v, float *S, float *y) {
#pragma omp parallel for num_threads(threads)
    for (ptrdiff_t item = 0; item < N * H; item++) {
        float loss[K], p[K];
        for (ptrdiff_t t = item / H * T; t < (item / H + 1) * T; t++) {
            const ptrdiff_t i = t * H + item % H;
            linear_token(q + i * K, g + i * K, k + i * K, v + i * V, S + item * K * V, y + i * V, loss, p, K, V);
        }
    }
}

static inline void read_state(const float *restrict S, const float *restrict a, const float *restrict p,
                              float *restrict s, float *restrict y, ptrdiff_t K, ptrdiff_t V) {
    for (ptrdiff_t c = 0; c < V; c++) s[c] = y[c] = 0;
    for (ptrdiff_t j = 0; j < K; j++) {
        const float *restrict row = S + j * V;
        const float aj = a[j], pj = p[j];
        for (ptrdiff_t c = 0; c < V; c++) {
            s[c] += aj * row[c];
            y[c] += pj * row[c];
        }
    }
}

static inline void dplr_token(const float *restrict q, const float *restrict g, const float *restrict k,
                              const float *restrict v, const float *restrict a, const float *restrict b,
                              float *restrict S, float *restrict y, float *restrict loss, float *restrict p,
                              float *restrict s, ptrdiff_t K, ptrdiff_t V) {
    float qb = 0, qk = 0;
    for (ptrdiff_t j = 0; j < K; j++) loss[j] = expm1f(g[j]);
    for (ptrdiff_t j = 0; j < K; j++) p[j] = q[j] + q[j] * loss[j];
    for (ptrdiff_t j = 0; j < K; j++) {
        qb += q[j] * b[j];
        qk += q[j] * k[j];
    }
    read_state(S, a, p, s, y, K, V);
    for (ptrdiff_t c = 0; c < V; c++) y[c] += qb * s[c] + qk * v[c];
    for (ptrdiff_t j = 0; j < K; j++) {
        float *restrict row = S + j * V;
        const float lj = loss[j], bj = b[j], kj = k[j];
        for (ptrdiff_t c = 0; c < V; c++) row[c] += lj * row[c] + (bj * s[c] + kj * v[c]);
    }
}

void dplr(int threads, ptrdiff_t N, ptrdiff_t T, ptrdiff_t H, ptrdiff_t K, ptrdiff_t V, const float *q, const float *g,
          const float *k, const float *v, const float *a, const float *b, float *S, float *y) {
#pragma omp parallel for num_threads(threads)
    for (ptrdiff_t item = 0; item < N * H; item++) {
        float loss[K], p[K], s[V];
        for (ptrdiff_t t = item / H * T; t < (item / H + 1) * T; t++) {
            const ptrdiff_t i = t * H + item % H;
            dplr_token(q + i * K, g + i * K, k + i * K, v + i * V, a + i * K, b + i * K, S + item * K * V, y + i * V,
                       loss, p, s, K, V);
        }
    }
}

static inline void delta_token(const float *restrict q, const float *restrict g, const float *restrict k,
                               const float *restrict v, float beta, float *restrict S, float *restrict y,
                               float *restrict loss, float *restrict p, float *restrict a, float *restrict s,
                               ptrdiff_t K, ptrdiff_t V) {
    float qk = 0;
    for (ptrdiff_t j = 0; j < K; j++) loss[j] = expm1f(g[j]);
    for (ptrdiff_t j = 0; j < K; j++) {
        p[j] = q[j] + q[j] * loss[j];
        a[j] = k[j] + k[j] * loss[j];
    }
    for (ptrdiff_t j = 0; j < K; j++) qk += q[j] * k[j];
    read_state(S, a, p, s, y, K, V);
    for (ptrdiff_t c = 0; c < V; c++) {
        s[c] = beta * (v[c] - s[c]);
        y[c] += qk * s[c];
    }
    for (ptrdiff_t j = 0; j < K; j++) {
        float *restrict row = S + j * V;
        const float lj = loss[j], kj = k[j];
        for (ptrdiff_t c = 0; c < V; c++) row[c] += lj * row[c] + kj * s[c];
    }
}

void delta_rule(int threads, ptrdiff_t N, ptrdiff_t T, ptrdiff_t H, ptrdiff_t K, ptrdiff_t V, const float *q,
                const float *g, const float *k, const float *v, const float *beta, float *S, float *y) {
#pragma omp parallel for num_threads(threads)
    for (ptrdiff_t item = 0; item < N * H; item++) {
        float loss[K], p[K], a[K], s[V];
        for (ptrdiff_t t = item / H * T; t < (item / H + 1) * T; t++) {
            const ptrdiff_t i = t * H + item % H;
            delta_token(q + i * K, g + i * K, k + i * K, v + i * V, beta[i], S + item * K * V, y + i * V, loss, p, a, s,
                        K, V);
        }
    }
}

static inline void wkv_token(const float *restrict w, const float *restrict u, const float *restrict k,
                             const float *restrict v, float *restrict aa, float *restrict bb, double *restrict pp,
                             float *restrict y, ptrdiff_t C) {
    for (ptrdiff_t c = 0; c < C; c++) {
        float gap = (float)(pp[c] - k[c] - u[c]), e = expf(-fabsf(gap));
        float old = gap > 0 ? 1 : e, new = gap > 0 ? e : 1;
        y[c] = (old * aa[c] + new * v[c]) / (old * bb[c] + new);
        const double decayed = pp[c] + w[c];
        gap = (float)(decayed - k[c]);
        e = expf(-fabsf(gap));
        old = gap > 0 ? 1 : e;
        new = gap > 0 ? e : 1;
        aa[c] = old * aa[c] + new * v[c];
        bb[c] = old * bb[c] + new;
        pp[c] = decayed > k[c] ? decayed : k[c];
    }
}

void wkv(int threads, ptrdiff_t N, ptrdiff_t T, ptrdiff_t C, const float *w, const float *u, const float *k,
         const float *v, float *aa, float *bb, double *pp, float *y) {
    const ptrdiff_t blocks = C / CHANNELS;
#pragma omp parallel for num_threads(threads)
    for (ptrdiff_t item = 0; item < N * blocks; item++) {
        const ptrdiff_t n = item / blocks, i = item % blocks * CHANNELS, s = n * C + i;
        for (ptrdiff_t t = n * T; t < (n + 1) * T; t++)
            wkv_token(w + i, u + i, k + t * C + i, v + t * C + i, aa + s, bb + s, pp + s, y + t * C + i, CHANNELS);
    }
}

static inline void selective_token(const float *restrict x, const float *restrict dt, const float *restrict A,
                                   const float *restrict b, const float *restrict r, const float *restrict D,
                                   const float *restrict z, float *restrict h, float *restrict y, ptrdiff_t C,
                                   ptrdiff_t N, ptrdiff_t width) {
    for (ptrdiff_t c = 0; c < width; c++) y[c] = D[c] * x[c];
    for (ptrdiff_t n = 0; n < N; n++) {
        const float *restrict a = A + n * C;
        float *restrict s = h + n * C;
        const float bn = b[n], rn = r[n];
        for (ptrdiff_t c = 0; c < width; c++) {
            s[c] += expm1f(dt[c] * a[c]) * s[c] + dt[c] * x[c] * bn;
            y[c] += rn * s[c];
        }
    }
    for (ptrdiff_t c = 0; c < width; c++) y[c] *= z[c] / (1 + expf(-z[c]));
}

void selective(int threads, ptrdiff_t Q, ptrdiff_t T, ptrdiff_t C, ptrdiff_t N, const float *x, const float *dt,
               const float *A, const float *B, const float *R, const float *D, const float *z, float *h, float *y) {
    const ptrdiff_t blocks = C / CHANNELS;
#pragma omp parallel for num_threads(threads)
    for (ptrdiff_t item = 0; item < Q * blocks; item++) {
        const ptrdiff_t q = item / blocks, i = item % blocks * CHANNELS;
        for (ptrdiff_t t = q * T; t < (q + 1) * T; t++)
            selective_token(x + t * C + i, dt + t * C + i, A + i, B + t * N, R + t * N, D + i, z + t * C + i,
                            h + q * N * C + i, y + t * C + i, C, N, CHANNELS);
    }
}
