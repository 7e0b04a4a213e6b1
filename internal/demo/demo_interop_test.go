//go:build interop

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	show(t, &out)
	for _, want := range []string{"ready nbd+unix://", "GUEST-OK", "random read, 4 KiB", "equal;", "sluice_requests_total{", "exit code 0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing from:\n%s", want, out.String())
		}
	}
}
