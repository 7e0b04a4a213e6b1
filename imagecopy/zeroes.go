package imagecopy

import "bytes"

// zeroes is what a run of zeroes is compared with.
var zeroes [64 << 10]byte

// nextRun gives the length of the first run in p and whether it is of zeroes.
// Runs are made of whole grains, but for the last one; with grain 0, all is
// data.
func nextRun(p []byte, grain int64) (n int, zero bool) {
	if grain == 0 || len(p) == 0 {
		return len(p), false
	}
	step := int(min(grain, int64(len(p))))
	zero = isZero(p[:step])
	for n = step; n < len(p); n += step {
		step = min(step, len(p)-n)
		if isZero(p[n:n+step]) != zero {
			return n, zero
		}
	}
	return n, zero
}

// isZero reports whether p is all zeroes. Data mostly shows in its first bytes.
func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroes))
		if !bytes.Equal(p[:n], zeroes[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
