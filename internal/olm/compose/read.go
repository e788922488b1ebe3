package compose

import (
	"fmt"
	"io/fs"
	"path"

	"github.com/countersign-dev/countersign/internal/olm"
)

// samples are the files of config/samples that become examples. A console fills its form with the
// first example of a kind.
func samples() []string {
	return []string{
		"imagepolicy.yaml", "trustroot_notary.yaml", "imagepolicy_try_out.yaml", "imagepolicy_allow_unsigned.yaml",
	}
}

// ReadConfig sets the fields of in that come from config, the file system of config/: samples,
// icon, scorecard configuration and the hand-written part of the ClusterServiceVersion. It decodes
// rendered, a render of config/olm with in.Image, into in.Rendered.
func (in *Input) ReadConfig(config fs.FS, rendered []byte) error {
	var err error
	if in.Rendered, err = olm.Objects(rendered); err != nil {
		return fmt.Errorf("config/olm: %w", err)
	}
	in.Samples = nil
	for _, name := range samples() {
		text, err := fs.ReadFile(config, path.Join("samples", name))
		if err != nil {
			return fmt.Errorf("reading samples: %w", err)
		}
		objects, err := olm.Objects(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		in.Samples = append(in.Samples, objects...)
	}
	for name, into := range map[string]*[]byte{
		"clusterserviceversion.yaml": &in.CSV, "icon.svg": &in.Icon, "scorecard.yaml": &in.Scorecard,
	} {
		if *into, err = fs.ReadFile(config, path.Join("olm", name)); err != nil {
			return fmt.Errorf("reading config/olm: %w", err)
		}
	}
	return nil
}
