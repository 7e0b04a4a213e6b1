package spec

import (
	"fmt"
	"strconv"
	"time"

	"sluice/block/size"
)

// Duration is a length of time that reads and writes itself as text: "1m30s".
type Duration time.Duration

// Std gives the standard library's value.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes it as UnmarshalText reads it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration (30s, 5m, 1h)", text)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes that reads a number, or text with a suffix ("10M"),
// and writes a number.
type Size int64

// MarshalJSON implements json.Marshaler.
func (s Size) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (s *Size) UnmarshalJSON(data []byte) error {
	text := string(data)
	if unquoted, err := strconv.Unquote(text); err == nil {
		text = unquoted
	}
	return s.UnmarshalText([]byte(text))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := size.Parse(string(text))
	if err != nil {
		return err
	}
	*s = Size(n)
	return nil
}
