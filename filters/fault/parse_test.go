package fault

import (
	"strings"
	"testing"
	"time"

	"sluice/block"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Rule{
		"read:error=io": {Op: Read, Error: block.IO},
		"write:error=transient,range=1M-2M,probability=0.1": {
			Op: Write, Error: block.Transient, From: 1 << 20, To: 2 << 20, Probability: 0.1,
		},
		"flush:delay=200ms":                     {Op: Flush, Delay: 200 * time.Millisecond},
		"write:torn":                            {Op: Write, Torn: true},
		"write:error=no_space,torn=4K":          {Op: Write, Torn: true, TornAt: 4096, Error: block.NoSpace},
		"write:drop":                            {Op: Write, Drop: true},
		"any:error=transient,after=100,count=5": {Op: Any, Error: block.Transient, After: 100, Count: 5},
		"flush:drop":                            {Op: Flush, Drop: true},
		"read:hang":                             {Op: Read, Hang: true},
		"zero:delay=1s,drop,for=20s,seed=7":     {Op: Zero, Delay: time.Second, Drop: true, For: 20 * time.Second, Seed: 7},
		"discard:error=unsupported,range=1.5G-": {Op: Discard, Error: block.Unsupported, From: 3 << 29},
		"extents:error=busy,range=0-1000":       {Op: Extents, Error: block.Busy, To: 1000},
		"prefetch:error=fenced":                 {Op: Prefetch, Error: block.Fenced},
		"resize:error=permission":               {Op: Resize, Error: block.Permission},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != want {
			t.Errorf("%s: %s reads as %+v, %v", text, got, again, err)
		}
	}
}

func TestStringIsAlwaysTheSame(t *testing.T) {
	r := parsed(t, "write:seed=3,count=2,range=1024-1536,torn=1024,delay=1000ms,error=io")[0]
	if want := "write:error=io,delay=1s,torn=1K,range=1K-1.5K,count=2,seed=3"; r.String() != want {
		t.Errorf("got %s, want %s", r, want)
	}
}

// Each kind of error that there is has a name, and it is that kind's alone.
func TestEveryKindHasAName(t *testing.T) {
	for k := block.OK + 1; !strings.HasPrefix(k.String(), "kind "); k++ {
		if back, ok := kindOf(nameOf(k)); !ok || back != k {
			t.Errorf("%v is named %q, which is %v", k, nameOf(k), back)
		}
	}
}

func TestBadRulesSayWhatIsWrong(t *testing.T) {
	for text, why := range map[string]string{
		"":                                        "no colon",
		"read":                                    "no colon",
		"read:":                                   `"" is none of error`,
		"reed:error=io":                           `"reed" is none of`,
		"read:error":                              "want one of io, invalid",
		"read:error=oops":                         `error="oops"`,
		"read:error=ok":                           `error="ok"`,
		"read:count=5":                            "nothing to do",
		"read:error=io,error=busy":                "error comes twice",
		"read:error=io,":                          `"" is none of`,
		"read: error=io":                          `" error" is none of`,
		"read:delay=5":                            `delay="5": want a time`,
		"read:delay=-5s":                          "want a time above 0",
		"read:delay=0s":                           "want a time above 0",
		"write:torn=100":                          "multiple of 512",
		"write:torn=0":                            "multiple of 512",
		"write:torn=":                             "multiple of 512",
		"read:torn":                               "only a write can be torn",
		"any:torn":                                "only a write can be torn",
		"read:drop":                               "can be dropped",
		"any:drop":                                "can be dropped",
		"resize:drop":                             "can be dropped",
		"write:drop=1":                            "drop takes no value",
		"write:hang=":                             "hang takes no value",
		"write:drop,error=io":                     "drop goes with neither",
		"write:drop,torn":                         "drop goes with neither",
		"write:hang,delay=1s":                     "hang goes with nothing else",
		"read:hang,error=io":                      "hang goes with nothing else",
		"flush:error=io,range=0-1M":               "a flush has no range",
		"resize:error=io,range=1M-":               "a resize has no range",
		"read:error=io,range=1M":                  "want FROM-TO",
		"read:error=io,range=2M-1M":               "want FROM-TO",
		"read:error=io,range=1M-1M":               "want FROM-TO",
		"read:error=io,range=-1M":                 "want FROM-TO",
		"read:error=io,probability=0":             "above 0 and up to 1",
		"read:error=io,probability=1.1":           "above 0 and up to 1",
		"read:error=io,probability=NaN":           "above 0 and up to 1",
		"read:error=io,probability=":              "above 0 and up to 1",
		"read:error=io,after=-1":                  "want a number of calls",
		"read:error=io,count=0":                   "want a number of calls above 0",
		"read:error=io,for=0":                     "want a time above 0",
		"read:error=io,seed=-1":                   "want a number",
		"read:error=io\nwrite:error=io":           `error="io\nwrite:error=io"`,
		"read:error=" + strings.Repeat("x", 5000): "xxx\"…: want one of",
	} {
		_, err := Parse(text)
		if block.KindOf(err) != block.Invalid {
			t.Errorf("%.50q: got kind %v (%v)", text, block.KindOf(err), err)
			continue
		}
		msg := err.Error()
		if !strings.Contains(msg, why) || !strings.Contains(msg, quote(text)) || strings.Contains(msg, "\n") || len(msg) > 1000 {
			t.Errorf("%.50q: %s; want it to say %s", text, msg, why)
		}
	}
}

// What Parse takes it takes again in its own words, and what it does not is
// Invalid.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"read:error=io", "write:error=transient,range=1M-2M,probability=0.1", "flush:delay=200ms", "write:torn=512,error=corrupt",
		"any:error=busy,after=100,count=5", "read:hang,for=1h2m3.000000004s", "zero:drop,seed=18446744073709551615",
		"discard:error=io,range=1.5G-", "write:error=io,range=0-", "write:torn,range=1-8E", ":", "any:", "read:probability=1e-320,error=io",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			if block.KindOf(err) != block.Invalid || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, which as %q reads as %+v, %v", text, r, r.String(), again, err)
		}
		if again.String() != r.String() {
			t.Errorf("%q and %q", r.String(), again.String())
		}
	})
}
