//go:build interop

package lab

import "testing"

// TestServiceManagerHearsSystemdNotify has systemd's own program report.
func TestServiceManagerHearsSystemdNotify(t *testing.T) {
	Need(t, "systemd-notify")
	m := NewServiceManager(t)
	// The program reports in the name of the process that called it.
	m.Start("sh", "-c", "systemd-notify --ready --status='all is well' || exit; echo reported")
	n := m.Await("READY=1")
	if status, _ := n.Value("STATUS"); status != "all is well" || n.Pid != m.proc.Pid() {
		t.Errorf("%+v", n)
	}
	if err := m.proc.Wait(); err != nil {
		t.Error(err)
	}
}
