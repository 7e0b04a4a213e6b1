package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands gives the whole tree.
func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		all = append(all, commands(c)...)
	}
	return all
}

func TestEveryCommandIsDescribed(t *testing.T) {
	var docs strings.Builder
	for _, name := range []string{"serve.md", "images.md"} {
		text, err := os.ReadFile(filepath.Join(home, "../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(text)
	}
	for _, c := range commands(newRoot()) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s: Short, Long and Example are needed", c.CommandPath())
		}
		if !c.Hidden && c.Name() != "help" && !strings.Contains(docs.String(), "`"+c.CommandPath()) {
			t.Errorf("docs/ do not show `%s`", c.CommandPath())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "version" && !strings.Contains(docs.String(), "`--"+f.Name) {
				t.Errorf("docs/ do not describe --%s of %s", f.Name, c.CommandPath())
			}
			if f.Usage == "" {
				t.Errorf("--%s of %s has no description", f.Name, c.CommandPath())
			}
		})
	}
}

// TestDocsNameNoOtherFlags finds flags in the documents that are not there.
func TestDocsNameNoOtherFlags(t *testing.T) {
	known := map[string]bool{"help": true, "version": true}
	for _, c := range commands(newRoot()) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
	}
	for _, name := range []string{"serve.md", "images.md"} {
		text, err := os.ReadFile(filepath.Join(home, "../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`--([a-z-]+)").FindAllStringSubmatch(string(text), -1) {
			if !known[m[1]] {
				t.Errorf("%s describes --%s, which is not there", name, m[1])
			}
		}
	}
}

// TestExamplesParse reads each example as the program would, up to the point
// where it would do something.
func TestExamplesParse(t *testing.T) {
	for _, c := range commands(newRoot()) {
		example := strings.ReplaceAll(c.Example, "\\\n", " ")
		for line := range strings.Lines(example) {
			words := strings.Fields(line)
			if i := indexOf(words, ">"); i >= 0 {
				words = words[:i]
			}
			if len(words) == 0 || words[0] != "sluice" {
				continue // another program, which starts ours
			}
			root := newRoot()
			cmd, args, err := root.Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(args)
			}
			if err == nil && cmd.Args != nil {
				err = cmd.Args(cmd, cmd.Flags().Args())
			}
			if err != nil || cmd == root {
				t.Errorf("%s: example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
			}
		}
	}
}

func indexOf(words []string, w string) int {
	for i, word := range words {
		if word == w {
			return i
		}
	}
	return -1
}

func TestManPages(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "man", "pages")
	for _, c := range commands(newRoot()) {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, "pages", name))
		if err != nil || !strings.Contains(string(text), ".SH EXAMPLE") {
			t.Errorf("%s: %v, no examples", name, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if !strings.Contains(must(t, dir, "completion", shell), "sluice") {
			t.Errorf("%s: no script", shell)
		}
	}
	if out := completed(t, dir, "cre"); !strings.Contains(out, "create") {
		t.Error(out)
	}
	if out := completed(t, dir, "create", "--preallocation", ""); !strings.Contains(out, "falloc") {
		t.Error(out)
	}
	// Directive 0: the shell goes on with file names.
	if out := completed(t, dir, "info", ""); !strings.Contains(out, ":0\n") {
		t.Error(out)
	}
}

// completed gives what the shell's script would be told.
func completed(t *testing.T, dir string, words ...string) string {
	t.Helper()
	o := sluice(t, dir, append([]string{"__completeNoDesc"}, words...)...)
	if o.code != exitOK {
		t.Fatalf("exit code %d, %q", o.code, o.stderr)
	}
	return o.stdout
}
