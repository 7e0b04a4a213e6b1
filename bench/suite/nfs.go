package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"sluice/bench/report"
	"sluice/internal/lab"
)

// nfsNote is what a reader of the results has to know about a server that has the image over NFS.
const nfsNote = "{nfs} is nfs://HOST:PORT/export/disk.raw, the image on an nfs-ganesha on loopback, the same for all; " +
	"{libnfs} is that without the port, for which libnfs asks an rpcbind."

// nfsServer is the nfs-ganesha that has the image, for all servers that have it from there.
type nfsServer struct {
	*lab.NFSServer
	stage *stage
}

// startNFS exports a folder and returns when the server answers.
func startNFS(dir string) (*nfsServer, error) {
	s := &nfsServer{stage: &stage{}}
	done := make(chan struct{})
	go func() { // a failure ends it
		defer close(done)
		s.NFSServer = lab.NFS(s.stage, lab.NFSConfig{V3: true, Exports: []lab.NFSExport{{Dir: dir}}})
	}()
	<-done
	if s.stage.err != nil {
		s.stage.clean()
		return nil, fmt.Errorf("start nfs-ganesha: %w: %s", s.stage.err, &s.stage.log)
	}
	return s, nil
}

// alive tells whether the server still runs.
func (s *nfsServer) alive() bool {
	select {
	case <-s.Proc().Done():
		return false
	default:
		return true
	}
}

// stop ends the server.
func (s *nfsServer) stop() { s.stage.clean() }

// nfsUp makes sure that the image is served over NFS.
func (r *runner) nfsUp() (err error) {
	if r.nfs != nil && r.nfs.alive() {
		return nil
	}
	r.nfsDown()
	r.nfs, err = startNFS(filepath.Dir(r.data.disk))
	return err
}

func (r *runner) nfsDown() {
	if r.nfs != nil {
		r.nfs.stop()
		r.nfs = nil
	}
}

// withNFS adds what the NFS server used meanwhile, if there is one behind the server.
func (r *runner) withNFS(server Server, measure func() (report.Sample, error)) (report.Sample, error) {
	if server.Kind != report.NFS {
		return measure()
	}
	before, err := treeUsage(r.nfs.Proc().Pid())
	if err != nil {
		return report.Sample{}, err
	}
	s, err := measure()
	if err != nil {
		return s, err
	}
	after, err := treeUsage(r.nfs.Proc().Pid())
	if err != nil || !r.nfs.alive() {
		return s, errors.Join(err, errors.New("nfs-ganesha ended during the sample"))
	}
	s.BackendCPU = after.cpu - before.cpu
	return s, nil
}

// lookupNFS fails when a program that serves NFS is not there.
func lookupNFS(user string) error {
	return errors.Join(lookup("ganesha.nfsd", "nfs-ganesha nfs-ganesha-vfs", user), lookup("rpcbind", "rpcbind", user))
}

// stage is the lab's TB outside of tests. One goroutine uses it at a time.
type stage struct {
	cleanups []func()
	log      tail
	err      error
}

var _ lab.TB = (*stage)(nil)

// Helper has no meaning here.
func (s *stage) Helper() {}

// Logf keeps the text for an error that comes with it.
func (s *stage) Logf(format string, args ...any) { _, _ = fmt.Fprintf(&s.log, format+"\n", args...) }

// Fatalf ends the goroutine.
func (s *stage) Fatalf(format string, args ...any) {
	s.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// Failed tells whether Fatalf was called.
func (s *stage) Failed() bool { return s.err != nil }

// Cleanup adds something to do at the end, the last one first.
func (s *stage) Cleanup(fn func()) { s.cleanups = append(s.cleanups, fn) }

// TempDir makes a folder that goes at the end.
func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "slb-nfs-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// clean does what Cleanup collected.
func (s *stage) clean() {
	for n := len(s.cleanups) - 1; n >= 0; n-- {
		s.cleanups[n]()
	}
	s.cleanups = nil
}
