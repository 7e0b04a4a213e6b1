package state

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// addForEver is a process that adds, changes and removes exports from several
// goroutines, and prints what it was told to be done: "+ name id", "- name".
func addForEver(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				id, err := s.NextID()
				if err == nil {
					name := fmt.Sprintf("vm-%d-%d", i, id)
					fmt.Printf("? %s %d\n", name, id)
					if err = s.Put(Record{Spec: specOf(name), ID: id, Source: "api"}); err == nil {
						fmt.Printf("+ %s %d\n", name, id)
						if n%3 == 2 {
							fmt.Printf("? %s %d\n", name, id)
							if err = s.Delete(name); err == nil {
								fmt.Printf("- %s %d\n", name, id)
							}
						}
					}
				}
				if err != nil {
					fmt.Println("failed", err)
					os.Exit(1)
				}
			}
		})
	}
	wg.Wait()
}

// TestKilled kills such a process 30 times at random moments. What it was told to
// be done is so; what was under way is done or not; all else is as it was.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	want := map[string]uint64{} // what is there
	taken := map[uint64]bool{}
	total := 0
	for range 30 {
		open := map[string]bool{} // changes under way
		for _, line := range killedRun(t, dir, time.Duration(rand.IntN(60))*time.Millisecond) {
			f := strings.Fields(line)
			if len(f) != 3 {
				t.Fatalf("%q", line)
			}
			id, err := strconv.ParseUint(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			switch f[0] {
			case "?":
				if _, there := want[f[1]]; !there && taken[id] {
					t.Errorf("number %d was given out twice", id)
				}
				taken[id] = true
				open[f[1]] = true
			case "+":
				want[f[1]] = id
				delete(open, f[1])
				total++
			case "-":
				delete(want, f[1])
				delete(open, f[1])
				total++
			default:
				t.Fatalf("the process said %q", line)
			}
		}
		compare(t, dir, want, open)
	}
	t.Logf("%d changes were acknowledged", total)
	if total < 30 {
		t.Errorf("%d changes in 30 runs", total)
	}
}

// killedRun starts the process and kills it some time after its first change. It
// gives the whole lines that came.
func killedRun(t *testing.T, dir string, after time.Duration) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "STATE_TEST_ADD_IN="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	var lines []string
	var kill *time.Timer
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break // an unfinished line was not said
		}
		if kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the process ended by itself: %v, %q", err, lines)
	}
	kill.Stop()
	return lines
}

// compare compares the folder with what has to be in it, and takes what was
// under way as it came out.
func compare(t *testing.T, dir string, want map[string]uint64, open map[string]bool) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, r := range all(t, s) {
		if diff := cmp.Diff(Record{Spec: specOf(r.Spec.Name), ID: r.ID, Source: "api"}, r); diff != "" {
			t.Errorf("half a record: %s", diff)
		}
		got[r.Spec.Name] = r.ID
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name := range open {
		if id, there := got[name]; there {
			want[name] = id
		} else {
			delete(want, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}
