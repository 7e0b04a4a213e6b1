package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

const completionLong = `Print a script that makes a shell complete Sluice's commands, flags and file
names. Load it in the running shell, or put it where the shell looks for such
scripts. The one for bash works with and without the bash-completion package.`

const completionExample = `  source <(sluice completion bash)
  sluice completion bash > /etc/bash_completion.d/sluice
  sluice completion zsh > "${fpath[1]}/_sluice"
  sluice completion fish > ~/.config/fish/completions/sluice.fish`

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a completion script for a shell",
		Long:      completionLong,
		Example:   completionExample,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      exactly("the shell's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return bashCompletion(cmd.Root(), cmd.OutOrStdout())
			case "zsh":
				return cmd.Root().GenZshCompletion(cmd.OutOrStdout())
			case "fish":
				return cmd.Root().GenFishCompletion(cmd.OutOrStdout(), true)
			}
			return usagef(cmd, "completion: %q is none of bash, zsh and fish", args[0])
		},
	}
}

// bashWords is what the script for bash does where the bash-completion package,
// which a small Debian lacks, does not split the command line for it: the line up
// to the cursor is split at blanks, and nowhere else ("--flag=value" and URLs are
// one word).
const bashWords = `    local line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then words+=(""); fi
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=${words[cword - 1]}
`

// bashCompletion writes cobra's script, which needs that package, with bashWords
// where it has no other choice.
func bashCompletion(root *cobra.Command, w io.Writer) error {
	const needy = "    _get_comp_words_by_ref \"$@\" cur prev words cword\n"
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	if n := bytes.Count(script.Bytes(), []byte(needy)); n != 1 {
		return fmt.Errorf("completion: the script for bash splits words in %d places, not in one", n)
	}
	_, err := w.Write(bytes.Replace(script.Bytes(), []byte(needy), []byte(bashWords), 1))
	return err
}
