//go:build !race

package apiclient

import (
	"strconv"
	"testing"
	"time"

	"sluice/gateway/httpapi"
	"sluice/gateway/httpapi/apitest"
	"sluice/gateway/spec"
	"sluice/internal/lab"
)

// TestManyExports: what the API itself takes of the time for a thousand exports.
// The goals are those that the whole has to keep; the figures are logged.
func TestManyExports(t *testing.T) {
	fake := apitest.New()
	c, _, _ := served(t, httpapi.Config{Gateway: fake})
	const n = 1000
	begin := time.Now()
	for i := range n {
		s := spec.Spec{
			Name: "export-" + strconv.Itoa(i), URL: "/var/lib/images/export-" + strconv.Itoa(i) + ".img", Description: "one of many",
			NBD: []string{"unix:/run/export.sock"}, Settings: spec.Settings{Throttle: spec.Throttle{ReadIOPS: 100, WriteBytes: 1 << 20}},
		}
		if _, err := c.Add(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	added := time.Since(begin)
	var listed time.Duration
	for range 5 {
		begin = time.Now()
		all, err := c.List(t.Context())
		if err != nil || len(all) != n || all[1].Spec.Name != "export-1" || all[1].Spec.Throttle.WriteBytes != 1<<20 {
			t.Fatalf("%d exports, %v", len(all), err)
		}
		if took := time.Since(begin); listed == 0 || took < listed {
			listed = took
		}
	}
	t.Logf("%d exports were added in %v and listed in %v", n, added, listed)
	lab.Goal(t, "adding", added, 10*time.Second, 2*time.Minute)
	lab.Goal(t, "the quickest list", listed, 100*time.Millisecond, 2*time.Second)
}
