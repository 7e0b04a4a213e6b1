package main

import (
	"github.com/spf13/cobra"
)

const completionLong = `Print a script that makes a shell complete Sluice's commands, flags and file
names. Load it in the running shell, or put it where the shell looks for such
scripts.`

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
				return cmd.Root().GenBashCompletionV2(cmd.OutOrStdout(), true)
			case "zsh":
				return cmd.Root().GenZshCompletion(cmd.OutOrStdout())
			case "fish":
				return cmd.Root().GenFishCompletion(cmd.OutOrStdout(), true)
			}
			return usagef(cmd, "completion: %q is none of bash, zsh and fish", args[0])
		},
	}
}
