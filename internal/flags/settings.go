package flags

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/workload"
)

// Settings are the settings of the manager that change what the gate decides. The command line has
// the same flags for them.
type Settings struct {
	// Namespace is the operator's own.
	Namespace string
	// Uncovered is what happens to an image that no policy covers.
	Uncovered policy.Uncovered
	// ShortNames is how an image without a registry host is read: "DockerIO", "Deny", or empty for
	// the default of the platform, see ReadShortNames.
	ShortNames string
	// ExemptNamespaces are exempt from admission, besides the ones that always are.
	ExemptNamespaces []string
	// Kinds are the kinds of workload that are checked: the builtin kinds, and those of
	// --workload-kinds. Their templates may hold the placeholders of --image-placeholders.
	Kinds workload.Kinds
}

// SettingFlags are the flags of Settings.
type SettingFlags struct {
	flags                       *pflag.FlagSet
	uncovered, shortNames       string
	exempt, kinds, placeholders []string
}

// DeclareSettings adds the flags of Settings to f, except that of the namespace: its name differs
// between the manager and the command line.
func DeclareSettings(f *pflag.FlagSet) *SettingFlags {
	v := &SettingFlags{flags: f}
	f.StringVar(&v.uncovered, "uncovered-images", "Allow",
		"what happens to an image that no policy covers: Allow, Warn or Deny")
	f.StringVar(&v.shortNames, "short-names", "",
		"how an image without a registry host is read: DockerIO, as one of docker.io, or Deny, as a name that nodes "+
			"may read otherwise, which fails every policy that holds in the namespace; default: DockerIO, and on "+
			"OpenShift Deny")
	f.StringSliceVar(&v.exempt, "exempt-namespaces", nil,
		"namespaces exempt from admission, besides kube-system, kube-node-lease, kube-public and the operator's own; "+
			"and, on OpenShift, openshift and openshift-*")
	f.StringSliceVar(&v.kinds, "workload-kinds", nil,
		"further kinds of workload to check, each RESOURCE.VERSION.GROUP=PATH with the path of its pod template, "+
			"such as rollouts.v1alpha1.argoproj.io=spec.template")
	f.StringSliceVar(&v.placeholders, "image-placeholders", nil,
		"further images that an injector replaces in Pods, each IMAGE=MARK or IMAGE=MARK=VALUE with the label or "+
			"annotation of the pod templates in which they are admitted, such as "+
			"auto=sidecar.istio.io/inject=true, which is always known")
	return v
}

// Read returns the settings, with the operator's own namespace. It must be called once the flags
// are parsed.
func (v *SettingFlags) Read(namespace string) (Settings, error) {
	s := Settings{Namespace: namespace, ShortNames: v.shortNames, ExemptNamespaces: v.exempt}
	switch v.uncovered {
	case "Allow":
		s.Uncovered = policy.UncoveredAllow
	case "Warn":
		s.Uncovered = policy.UncoveredWarn
	case "Deny":
		s.Uncovered = policy.UncoveredDeny
	default:
		return Settings{}, fmt.Errorf("--uncovered-images=%s: must be Allow, Warn or Deny", v.uncovered)
	}
	if v.flags.Changed("short-names") && s.ShortNames != policy.ShortNamesDockerIO.String() &&
		s.ShortNames != policy.ShortNamesDeny.String() {
		return Settings{}, fmt.Errorf(
			"--short-names=%s: must be DockerIO or Deny; leave it out for the default of the platform", s.ShortNames)
	}
	var kinds error
	s.Kinds, kinds = readKinds(v.kinds, v.placeholders)
	return s, errors.Join(s.validate(), kinds)
}

// readKinds returns the builtin kinds of workload with further ones, and with further placeholders.
func readKinds(further, placeholders []string) (workload.Kinds, error) {
	kinds, err := workload.Builtin().With(further)
	if err != nil {
		err = fmt.Errorf("--workload-kinds: %w", err)
	}
	kinds, odd := kinds.WithPlaceholders(placeholders)
	if odd != nil {
		odd = fmt.Errorf("--image-placeholders: %w", odd)
	}
	return kinds, errors.Join(err, odd)
}

func (s Settings) validate() error {
	errs := []error{validateNamespace("the operator's own namespace", s.Namespace)}
	for _, ns := range s.ExemptNamespaces {
		errs = append(errs, validateNamespace("--exempt-namespaces", ns))
	}
	return errors.Join(errs...)
}

func validateNamespace(setting, name string) error {
	problems := validation.IsDNS1123Label(name)
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %q is not the name of a namespace: %s", setting, name, strings.Join(problems, "; "))
}

// ReadShortNames returns how short names are read: as --short-names says, or by default as the
// nodes of the platform read them. The nodes of OpenShift search several registries for a short
// name.
func (s Settings) ReadShortNames(openShift bool) policy.ShortNames {
	if s.ShortNames == policy.ShortNamesDockerIO.String() || s.ShortNames == "" && !openShift {
		return policy.ShortNamesDockerIO
	}
	return policy.ShortNamesDeny
}
