package fsxtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// told is how many operations an explanation lists of each sort.
const told = 12

// does tells whether the run may do operations of the kind.
func (c Config) does(k Kind) bool { return !slices.Contains(c.Without, k) }

// explain says what one needs to find the mistake: how to repeat it, what touched the byte, and what came last.
func (r *runner) explain(err error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "fsx: %s: seed %d, after operation %d: %v\n", r.Path, r.Seed, len(r.history), err)
	var m *mismatch
	if errors.As(err, &m) {
		r.list(&b, fmt.Sprintf("operations that changed byte %d", m.at), func(op Op) bool { return op.changes(m.at) })
	}
	r.list(&b, "last operations", func(Op) bool { return true })
	fmt.Fprintf(&b, "repeat it with FSXTEST_SEED=%d", r.Seed)
	return errors.New(b.String())
}

// list writes the last operations that are wanted, with their numbers.
func (r *runner) list(b *strings.Builder, title string, wanted func(Op) bool) {
	var lines []string
	for i := len(r.history) - 1; i >= 0 && len(lines) < told; i-- {
		if wanted(r.history[i]) {
			lines = append(lines, fmt.Sprintf("%8d %s\n", i+1, r.history[i]))
		}
	}
	slices.Reverse(lines)
	fmt.Fprintf(b, "%s (kind, offset, length, target, data, waits):\n%s", title, strings.Join(lines, ""))
}

// writeLog writes all operations for ReadLog.
func (r *runner) writeLog() (err error) {
	if r.Log == "" {
		return nil
	}
	f, err := os.Create(r.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for _, op := range r.history {
		if _, err := fmt.Fprintln(w, op); err != nil {
			return err
		}
	}
	return w.Flush()
}
