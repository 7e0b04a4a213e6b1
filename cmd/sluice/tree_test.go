package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manuals describe the commands and their flags.
var manuals = []string{"serve.md", "images.md", "exports.md", "daemon.md"}

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
	for _, name := range manuals {
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
	for _, name := range manuals {
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
		for _, args := range commandLines(c.Example) {
			parses(t, c.CommandPath(), args)
		}
	}
}

// TestDocsParse does the same with the code blocks of the documents.
func TestDocsParse(t *testing.T) {
	top := filepath.Join(home, "../..")
	n := 0
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/design/*.md"} {
		names, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i, block := range strings.Split(string(text), "```") {
				if i%2 == 0 {
					continue // outside
				}
				for _, args := range commandLines(block) {
					parses(t, filepath.Base(name), args)
					n++
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("%d command lines were found", n)
	}
}

// commandLines finds our command lines in a text for a shell, those in which
// another program or a service manager starts ours included, and gives their
// arguments.
func commandLines(text string) [][]string {
	var found [][]string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		for i, word := range words {
			first := i == 0 || words[i-1] == "["
			word, inside := strings.CutPrefix(word, "<(")
			word = strings.TrimPrefix(word, "ExecStart=")
			if (first || inside) && path.Base(word) == "sluice" {
				found = append(found, argumentsIn(words[i+1:]))
			}
		}
	}
	return found
}

// argumentsIn gives the words up to the end of a command.
func argumentsIn(words []string) []string {
	var args []string
	for _, word := range words {
		switch word {
		case ">", "|", "&", "]", "#":
			return args
		}
		word, last := strings.CutSuffix(word, ")")
		args = append(args, strings.Trim(word, `'"`))
		if last {
			break
		}
	}
	return args
}

// parses checks that the command and its flags are there.
func parses(t *testing.T, where string, line []string) {
	t.Helper()
	root := newRoot()
	cmd, args, err := root.Find(line)
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err == nil && cmd.Args != nil {
		err = cmd.Args(cmd, cmd.Flags().Args())
	}
	if err != nil || cmd == root {
		t.Errorf("%s: sluice %s: %v", where, strings.Join(line, " "), err)
	}
}

func TestCommandLinesAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"$ sluice ls .\nready x\nman sluice-copy\nname: sluice\n":      "[[ls .]]",
		"sluice serve d \\\n  --name n &\n  sluice map d | wc":         "[[serve d --name n] [map d]]",
		"nbdcopy -- [ sluice serve d ] copy.img":                       "[[serve d]]",
		"source <(sluice completion bash)   # with":                    "[[completion bash]]",
		"ExecStart=/usr/bin/sluice serve 'nbd+unix:///?socket=/run/s'": "[[serve nbd+unix:///?socket=/run/s]]",
	} {
		if got := fmt.Sprint(commandLines(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
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
	// All of them ask the program itself, as the test goes on to do.
	for shell, parts := range map[string][]string{
		"bash": {"complete -o default -F __start_sluice sluice", "__complete "},
		"zsh":  {"#compdef sluice\n", "compdef _sluice sluice", " __complete "},
		"fish": {"complete -c sluice ", " __complete "},
	} {
		script := must(t, dir, "completion", shell)
		for _, part := range parts {
			if !strings.Contains(script, part) {
				t.Errorf("the script for %s has no %q", shell, part)
			}
		}
	}
	for line, want := range map[string]string{
		"cre":                        "create :4",
		"copy a b --progress=":       "auto on off :4",
		"create a --preallocation ":  "off metadata falloc full :4",
		"create a --format ":         "raw :4",
		"create a --backing-format ": "raw :4",
		"copy a b --src-format ":     "raw :4",
		"serve a --tls ":             "off optional required :4",
		"info a --log-level ":        "debug info warn error :4",
		"completion ":                "bash zsh fish :4",
		"info ":                      ":0", // the shell goes on with file names
	} {
		words := strings.Split(line, " ")
		if got := strings.Join(strings.Fields(completed(t, dir, words...)), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
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
