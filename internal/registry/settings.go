package registry

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Refers lists the entries of Secrets and ConfigMaps that settings of registries refer to.
func Refers(spec []v1alpha1.Registry) []trust.Reference {
	var all []trust.Reference
	for i := range spec {
		if from := spec[i].CABundleFrom; from != nil {
			all = append(all, trust.Reference{KeySource: *from})
		}
		if ref := spec[i].CredentialsSecretRef; ref != nil {
			for _, key := range []string{
				corev1.DockerConfigJsonKey, corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey,
			} {
				all = append(all, trust.Reference{KeySource: secretEntry(ref, key), Optional: true})
			}
		}
	}
	return all
}

func secretEntry(ref *v1alpha1.SecretReference, key string) v1alpha1.KeySource {
	return v1alpha1.KeySource{Kind: "Secret", Name: ref.Name, Key: key}
}

// Settings compiles the settings of registries for an ImagesConfig. notes says which parts do not
// count, and why. The error is a *trust.Fault with one of the reasons of the Ready condition, and
// names the field.
func Settings(spec []v1alpha1.Registry, material trust.Material) (settings map[string]Config, notes []string,
	err error) {
	settings = make(map[string]Config, len(spec))
	for i := range spec {
		one, field := &spec[i], fmt.Sprintf("spec.registries[%d]", i)
		if err := checkRegistryHost(field+".host", one.Host); err != nil {
			return nil, nil, err
		}
		cfg := Config{
			PlainHTTP: one.PlainHTTP == v1alpha1.PlainHTTPAllow, CABundle: string(one.CABundle),
			TokenServices: slices.Clone(one.TokenServices),
		}
		at := field + ".caBundle"
		if from := one.CABundleFrom; from != nil {
			cfg.CABundle = material[*from]
			at = fmt.Sprintf("%sFrom (%s %s, entry %s)", at, from.Kind, from.Name, from.Key)
		}
		if cfg.CABundle != "" || one.CABundleFrom != nil {
			bundle, err := cabundle.Read([]byte(cfg.CABundle), 0, nil)
			if err != nil {
				return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", at, err)
			}
			for _, skipped := range bundle.Skipped {
				notes = append(notes, fmt.Sprintf("%s: skipped %s", at, skipped))
			}
		}
		if ref := one.CredentialsSecretRef; ref != nil {
			cfg.Username, cfg.Password, err = registryCredentials(ref, one.Host, material)
			if err != nil {
				return nil, nil, trust.AsFault(err, v1alpha1.ReasonInvalidSpec).Within(
					"%s.credentialsSecretRef (Secret %s): %w", field, ref.Name, err)
			}
		}
		settings[one.Host] = cfg
	}
	return settings, notes, nil
}

// checkRegistryHost refuses a host that no image reference has: it would silently never apply.
func checkRegistryHost(field, host string) error {
	const rest = "/a/b"
	ref, err := imageref.Parse(host + rest)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s: %w", field, err)
	}
	if read := strings.TrimSuffix(ref.Repository(), rest); read != host {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s: %q names no registry of its own: images of it are "+
			"read from %q; write that", field, host, ref.Host)
	}
	return nil
}

// registryCredentials returns the credentials of a Secret for a registry.
func registryCredentials(ref *v1alpha1.SecretReference, host string, material trust.Material) (username,
	password string, err error) {
	username, hasUsername := material[secretEntry(ref, corev1.BasicAuthUsernameKey)]
	password, hasPassword := material[secretEntry(ref, corev1.BasicAuthPasswordKey)]
	config, isDockerConfig := material[secretEntry(ref, corev1.DockerConfigJsonKey)]
	switch {
	case isDockerConfig:
		var found bool
		username, password, found, err = dockerCredentials(config, host)
		if err != nil {
			return "", "", trust.NewFault(v1alpha1.ReasonInvalidSpec, "its entry %s %w",
				corev1.DockerConfigJsonKey, err)
		}
		if !found {
			return "", "", trust.NewFault(v1alpha1.ReasonReferenceNotFound, "its entry %s has no credentials for %q",
				corev1.DockerConfigJsonKey, host)
		}
	case !hasUsername || !hasPassword:
		return "", "", trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"it has neither an entry %s nor the entries username and password", corev1.DockerConfigJsonKey)
	}
	// A file that an editor or echo wrote ends with a line break, and no server accepts it.
	return strings.TrimRight(username, "\r\n"), strings.TrimRight(password, "\r\n"), nil
}
