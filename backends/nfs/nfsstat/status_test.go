package nfsstat

import (
	"errors"
	"strings"
	"testing"

	"sluice/block"
)

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		status Status
		kind   block.Kind
		name   string
	}{
		{NoEnt, block.NotFound, "NFSERR_NOENT"},
		{NoSpc, block.NoSpace, "NFSERR_NOSPC"},
		{DQuot, block.NoSpace, "NFSERR_DQUOT"},
		{ROFS, block.ReadOnly, "NFSERR_ROFS"},
		{Delay, block.Transient, "NFSERR_DELAY"},
		{ShareDenied, block.Busy, "NFS4ERR_SHARE_DENIED"},
		{Status(4711), block.IO, "NFS status 4711"},
	} {
		err := error(&Error{Op: "OPEN", Status: tt.status})
		if block.KindOf(err) != tt.kind || !errors.Is(err, tt.kind) || !errors.Is(err, tt.status) {
			t.Errorf("%v is of kind %v, want %v", err, block.KindOf(err), tt.kind)
		}
		if !strings.Contains(err.Error(), "OPEN") || !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%q names neither the operation nor the status", err)
		}
	}
}

// Every status has a name that says which version has it, and a kind.
func TestTable(t *testing.T) {
	for status, e := range table {
		if !strings.HasPrefix(e.name, "NFS") || (e.kind == block.OK) != (status == OK) {
			t.Errorf("%d: %q, %v", uint32(status), e.name, e.kind)
		}
	}
}
