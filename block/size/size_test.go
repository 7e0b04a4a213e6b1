package size

import (
	"math"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "512B": 512, "1K": 1024, "1k": 1024, "1KiB": 1024, "1kb": 1024, "64M": 64 << 20,
		"10G": 10 << 30, "1.5G": 3 << 29, "0.5K": 512, "2T": 2 << 40, "3P": 3 << 50, "7E": 7 << 60, "0.1K": 102,
		"9223372036854775807": math.MaxInt64,
	}
	for in, want := range good {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	bad := []string{
		"", "B", "G", "-1", "+1", "1 G", " 1", "1.5", "1.", "1.G", ".5G", "1..5G", "1e3", "1e3K", "0x10", "1_000", "10X", "10GG",
		"10iB", "1KI", "8E", "9223372036854775808", "99999999999P", "1/2K", "١K", "NaN", "Inf", strings.Repeat("9", 70),
	}
	for _, in := range bad {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", in, got)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1K", 1536: "1.5K", 10 << 30: "10G", 3 << 29: "1.5G", 1<<30 + 1: "1G",
		math.MaxInt64: "8E", -2048: "-2K",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1.5G", "10GiB", "8E", "1e9K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Parse(s); err == nil && n < 0 {
			t.Errorf("Parse(%q) = %d", s, n)
		}
	})
}
