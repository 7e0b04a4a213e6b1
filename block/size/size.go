// Package size reads and writes byte counts the way people type them: 4096,
// 64K, 10G, 1.5T. All suffixes are binary. The command line and the backends
// that have a size in their URL use it.
package size

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

const suffixes = "KMGTPE"

// Parse reads a number of bytes: digits, with decimals where a suffix follows,
// and one of K, M, G, T, P, E (powers of 1024, in either case), which "B" or
// "iB" may follow. A fraction of a byte that remains is dropped. Signs,
// blanks, anything else and what does not fit into an int64 are refused.
func Parse(s string) (int64, error) {
	number, shift, err := split(s)
	if err != nil {
		return 0, err
	}
	if !plain(number, shift > 0) {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() {
		return 0, fmt.Errorf("size %q is too large: at most %d bytes", s, int64(math.MaxInt64))
	}
	return n.Int64(), nil
}

// split takes the suffix off and gives the power of two that it stands for.
func split(s string) (number string, shift uint, err error) {
	if len(s) > 64 {
		return "", 0, fmt.Errorf("%q… is not a size", s[:64])
	}
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, suffix := s[:end], strings.ToUpper(s[end:])
	if suffix == "" || suffix == "B" {
		return number, 0, nil
	}
	i := strings.IndexByte(suffixes, suffix[0])
	if rest := suffix[1:]; i < 0 || rest != "" && rest != "B" && rest != "IB" {
		return "", 0, fmt.Errorf("%q is not a size: unknown suffix %q", s, s[end:])
	}
	return number, uint(i+1) * 10, nil
}

// plain reports whether s is made of digits, with one point between two of them
// where that is allowed.
func plain(s string, point bool) bool {
	whole, fraction, found := strings.Cut(s, ".")
	if found && (!point || !digits(fraction)) {
		return false
	}
	return digits(whole)
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// Format writes n with the largest suffix that leaves at least 1, with up to
// two decimals: "512", "64K", "1.5G". Where that would round, use the number
// itself.
func Format(n int64) string {
	if n > -1024 && n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	f, i := float64(n)/1024, 0
	for math.Abs(f) >= 1024 && i < len(suffixes)-1 {
		f, i = f/1024, i+1
	}
	text := strconv.FormatFloat(f, 'f', 2, 64)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	return text + suffixes[i:i+1]
}
