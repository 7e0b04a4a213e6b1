package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"sluice/backends"
	"sluice/backends/location"
	"sluice/block"
)

const removeLong = `Remove images.

Only images are removed: folders, devices and everything else are refused, as is
an image that another program uses (--force removes it all the same).`

const removeExample = `  sluice rm disk.img
  sluice rm old1.img old2.img`

type removeFlags struct {
	*globals
	force bool
}

func newRemove(g *globals) *cobra.Command {
	f := &removeFlags{globals: g}
	cmd := &cobra.Command{
		Use:     "rm URL...",
		Short:   "Remove images",
		Long:    removeLong,
		Example: removeExample,
		Args:    atLeastOne("the image's URL"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	cmd.Flags().BoolVar(&f.force, "force", false, "remove an image that is in use")
	return cmd
}

// removed is what rm prints as JSON.
type removed struct {
	Removed []string `json:"removed"`
}

// run removes all it can and reports what failed.
func (f *removeFlags) run(cmd *cobra.Command, urls []string) error {
	result := removed{Removed: []string{}}
	var failures error
	for _, url := range urls {
		if err := f.remove(cmd.Context(), url); err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		result.Removed = append(result.Removed, location.Redact(url))
	}
	if f.json {
		return errors.Join(failures, printJSON(cmd.OutOrStdout(), result))
	}
	return failures
}

func (f *removeFlags) remove(ctx context.Context, url string) error {
	store, name, err := backends.Locate(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	entry, err := store.Stat(ctx, name)
	if err != nil {
		return err
	}
	if entry.Kind != "file" {
		return block.Errorf(block.Invalid, "remove", location.Redact(url), -1, "is not an image (kind: %s)", entry.Kind)
	}
	if !f.force {
		if err := inUse(ctx, store, name); err != nil {
			return err
		}
	}
	return store.Remove(ctx, name)
}

// inUse fails when another program has the image open. Other reasons why it does
// not open are none against its removal.
func inUse(ctx context.Context, store block.Store, name string) error {
	dev, err := store.Open(ctx, name, block.OpenOptions{})
	if err != nil {
		return advise(only(block.Busy, err), block.Busy, "end the program that uses it, or use --force")
	}
	return dev.Close()
}

// only gives err if it is of the kind.
func only(kind block.Kind, err error) error {
	if block.KindOf(err) != kind {
		return nil
	}
	return err
}
