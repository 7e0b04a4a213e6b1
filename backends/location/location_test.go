package location

import (
	"strings"
	"testing"

	"sluice/block"
)

func TestScheme(t *testing.T) {
	for in, want := range map[string]string{
		"mem://1G": "mem", "NBD+Unix:///x": "nbd+unix", "/a/b.img": "", "a.img": "", "./x://y": "", "1a://x": "", "a:b": "", "://x": "",
		"": "", "a b://c": "",
	} {
		if got := Scheme(in); got != want {
			t.Errorf("Scheme(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseErrorsHideTheUser(t *testing.T) {
	_, err := Parse("iscsi://joe%secret@host:port/x")
	if block.KindOf(err) != block.Invalid {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "iscsi://host:port/x") {
		t.Errorf("got %q", err)
	}
}

func params(t *testing.T, query string) *Params {
	t.Helper()
	u, err := Parse("x:///p?" + query)
	if err != nil {
		t.Fatal(err)
	}
	return ParamsOf(u, "x:///p")
}

func TestParams(t *testing.T) {
	p := params(t, "a=on&b=off&c=text")
	if !p.Switch("a").Or(false) || p.Switch("b").Or(true) || !p.Switch("d").Or(true) || p.Switch("d") != Unset || p.String("c", "") != "text" || p.String("e", "z") != "z" {
		t.Error("a value was misread")
	}
	if err := p.Done(); err != nil {
		t.Error(err)
	}
}

func TestParamsRefuse(t *testing.T) {
	for query, want := range map[string]string{
		"direkt=on":        `unknown parameter "direkt"`,
		"z=1&y=2":          `unknown parameter "y"`,
		"direct=yes":       "parameter direct=yes is neither on nor off",
		"direct":           "parameter direct= is neither on nor off",
		"direct=on&direct": `parameter "direct" is given 2 times`,
		"direct=%zz":       "invalid URL escape",
	} {
		p := params(t, query)
		p.Switch("direct")
		err := p.Done()
		if block.KindOf(err) != block.Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x:///p") {
			t.Errorf("%s: %v; want %s", query, err, want)
		}
	}
}
