package mem

import (
	"context"

	"sluice/backends/location"
	"sluice/block"
	"sluice/block/size"
)

// MaxSize is the largest Device: 1 PiB, whose directory takes 32 MiB.
const MaxSize = 1 << 50

// Config is what a mem URL says.
type Config struct {
	Size int64 // bytes
}

// ParseConfig reads mem://SIZE. There are no parameters.
func ParseConfig(url string) (Config, error) {
	u, err := location.Parse(url)
	if err != nil {
		return Config{}, err
	}
	if err := location.ParamsOf(u, url).Done(); err != nil {
		return Config{}, err
	}
	if u.User != nil || u.Host == "" || u.Path != "" && u.Path != "/" {
		return Config{}, block.Errorf(block.Invalid, "parse", location.Redact(url), -1, "a URL of RAM is mem://SIZE, such as mem://10G")
	}
	n, err := size.Parse(u.Host)
	if err != nil {
		return Config{}, block.Errorf(block.Invalid, "parse", url, -1, "%w", err)
	}
	return Config{Size: n}, checkSize("parse", n)
}

func checkSize(op string, n int64) error {
	if n < 0 || n > MaxSize {
		return block.Errorf(block.Invalid, op, "mem", -1, "size %d is not in 0 … %d", n, int64(MaxSize))
	}
	return nil
}

// Open makes the Device that the URL describes. Of the options only ReadOnly
// means something.
func Open(_ context.Context, url string, opts block.OpenOptions) (block.Device, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	d, err := New(cfg.Size)
	if err != nil {
		return nil, err
	}
	d.readOnly = opts.ReadOnly
	return d, nil
}
