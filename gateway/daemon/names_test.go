package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"sluice/gateway"
	"sluice/gateway/config"
	"sluice/gateway/spec"
	"sluice/gateway/state"
)

// TestAddedExportKeepsItsName: an export of that name in the configuration is refused at
// the start, as at a reload, until the other one is removed; nothing of it is lost.
func TestAddedExportKeepsItsName(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "added.img")
	r := prepared(t, spec.Spec{Name: "x", URL: "mem://2M"})
	folder := r.Config.State
	// There is no such image, so the export is never opened and never writes its record
	// again: what the state has at the end is what nobody has replaced.
	r.remember(spec.Spec{Name: "x", URL: path})
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	reread := *r.Config
	r.Reread = func() (*config.Config, error) { return &reread, nil }
	r.openNow((*daemon).open)
	if st, err := r.gw.Show("x"); err != nil || st.Source != gateway.FromAPI || st.Spec.URL != path {
		t.Errorf("%+v, %v", st, err)
	}
	reloaded := r.reload(t.Context())
	if err := r.end(); err != nil {
		t.Errorf("the end: %v", err)
	}
	for what, text := range map[string]string{"the start": log.String(), "a reload": fmt.Sprint(reloaded)} {
		if !strings.Contains(text, "add export x: an export has that name, added over the API; remove it first") {
			t.Errorf("%s: %s", what, text)
		}
	}
	st, err := state.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	records, err := st.All()
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	if len(records) != 1 || records[0].Source != string(gateway.FromAPI) || records[0].Spec.URL != path {
		t.Errorf("the state has %+v", records)
	}
}
