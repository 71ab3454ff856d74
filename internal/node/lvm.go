package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// LV is a logical volume as lvs reports it.
type LV struct{ VG, Name, Attr string }

// Active tells whether the volume is active here: the fifth character of lv_attr
// (lvs(8)). An attribute text that is too short is not active.
func (l LV) Active() bool { return len(l.Attr) >= 5 && l.Attr[4] == 'a' }

// ErrTimeoutVG says that a volume group did not appear in time.
var ErrTimeoutVG = errors.New("timeout waiting for VG")

// vgPoll is the time between two looks at a volume group: there is no event for
// a group that appears.
const vgPoll = 100 * time.Millisecond

// lvmCapture bounds the reports of one volume group.
const lvmCapture = 4 << 20

// vgName is what LVM accepts as a name (lvm(8)), of at most vgLength bytes. The
// name becomes part of a selection, where other characters would be operators.
// The length is apart because a counted repetition costs 100 KB of memory.
var vgName = regexp.MustCompile(`^[a-zA-Z0-9_+.][a-zA-Z0-9_+.-]*$`)

const vgLength = 127

func checkVG(vg string) error {
	if len(vg) > vgLength || !vgName.MatchString(vg) || vg == "." || vg == ".." {
		return fmt.Errorf("%.200q is not the name of a volume group", vg)
	}
	return nil
}

// LVs returns the logical volumes of the volume group vg; none is no error.
func (n *Node) LVs(ctx context.Context, vg string, timeout time.Duration) (lvs []LV, err error) {
	err = n.askLVM(ctx, "lvs", "vg_name,lv_name,lv_attr", vg, timeout, func(report string) (bool, error) {
		all, err := parseLVS(report)
		lvs = slices.DeleteFunc(all, func(l LV) bool { return l.VG != vg })
		return len(lvs) > 0, err
	})
	return lvs, err
}

// HasVG tells whether this node sees the volume group vg.
func (n *Node) HasVG(ctx context.Context, vg string, timeout time.Duration) (has bool, err error) {
	err = n.askLVM(ctx, "vgs", "vg_name", vg, timeout, func(report string) (bool, error) {
		names, err := parseVGS(report)
		has = slices.Contains(names, vg)
		return has, err
	})
	return has, err
}

// WaitVG looks for the volume group every 100 ms, at least once and at most for
// limit; timeout is that of each vgs. The error is ErrTimeoutVG, with the last
// failure of vgs if there was one.
func (n *Node) WaitVG(ctx context.Context, vg string, limit, timeout time.Duration) error {
	if err := checkVG(vg); err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	for {
		found, err := n.HasVG(ctx, vg, timeout)
		switch {
		case found:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for VG %s: %w", vg, context.Cause(ctx))
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, ErrHangs), survived(err):
			return err // another try cannot help
		case time.Until(deadline) <= 0 && err != nil:
			return fmt.Errorf("%w %s: %w", ErrTimeoutVG, vg, err)
		case time.Until(deadline) <= 0:
			return fmt.Errorf("%w %s", ErrTimeoutVG, vg)
		}
		t := time.NewTimer(min(vgPoll, time.Until(deadline)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// parseLVS reads the JSON report of lvs.
func parseLVS(out string) ([]LV, error) {
	var doc struct {
		Report []struct {
			LV []struct {
				VG   string `json:"vg_name"`
				Name string `json:"lv_name"`
				Attr string `json:"lv_attr"`
			} `json:"lv"`
		} `json:"report"`
	}
	if err := parseJSON("lvs", out, &doc); err != nil {
		return nil, err
	}
	var lvs []LV
	for _, r := range doc.Report {
		for _, l := range r.LV {
			lvs = append(lvs, LV{VG: l.VG, Name: l.Name, Attr: l.Attr})
		}
	}
	return lvs, nil
}

// parseVGS reads the JSON report of vgs and returns the names.
func parseVGS(out string) ([]string, error) {
	var doc struct {
		Report []struct {
			VG []struct {
				Name string `json:"vg_name"`
			} `json:"vg"`
		} `json:"report"`
	}
	if err := parseJSON("vgs", out, &doc); err != nil {
		return nil, err
	}
	var names []string
	for _, r := range doc.Report {
		for _, v := range r.VG {
			names = append(names, v.Name)
		}
	}
	return names, nil
}

// parseJSON decodes what tool printed, and shows the start of it when it cannot.
func parseJSON(tool, out string, into any) error {
	err := json.Unmarshal([]byte(out), into)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s printed something other than the expected JSON (%w); it begins with %q", tool, err, text.Cut(out, 200))
}
