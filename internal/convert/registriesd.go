package convert

import "cmp"

// registryScope is a section of containers-registries.d(5).
type registryScope struct {
	name        string // "" is default-docker
	at          value
	lookaside   string
	attachments *bool
}

// readRegistries reads the files of registries.d.
func (c *converter) readRegistries() error {
	seen := map[string]bool{}
	add := func(name string, v value) error {
		if seen[name] {
			return v.fault("is a second section for this scope")
		}
		seen[name] = true
		s := registryScope{name: name, at: v}
		var err error
		if s.lookaside, _, err = v.text("lookaside", "sigstore"); err != nil {
			return err
		}
		v.get("lookaside-staging", "sigstore-staging")
		on, _, err := v.flag(false, "use-sigstore-attachments")
		if err != nil {
			return err
		}
		if hasField(v, "use-sigstore-attachments") {
			s.attachments = &on
		}
		v.finish()
		c.registries = append(c.registries, s)
		return nil
	}
	for _, file := range c.options.RegistriesD {
		documents, err := c.read(file)
		if err != nil {
			return err
		}
		for _, d := range documents {
			if err := d.mapping(); err != nil {
				return err
			}
			d.name = "registries.d"
			if section, ok := d.get("default-docker"); ok {
				if err := add("", section); err != nil {
					return err
				}
			}
			if docker, ok := d.get("docker"); ok {
				keys, sections := docker.fields()
				for i, section := range sections {
					if err := add(keys[i], section); err != nil {
						return err
					}
				}
			}
			d.finish()
		}
	}
	return nil
}

// storage returns where the signatures of a scope are: the lookaside of the closest section that
// has one, and whether attachments are read. It notes sections within the scope, and returns those
// that turn attachments off.
func (c *converter) storage(scope string) (lookaside string, attachments bool, off []registryScope) {
	bestURL, bestOn := -1, -1
	attachments = c.options.RegistriesD == nil
	var found value
	for _, s := range c.registries {
		if s.name != "" && !within(scope, s.name) {
			if scope == "" || closer(s.name, scope) {
				c.note(s.at, noteInnerSection, cmp.Or(scope, "every image"))
				if s.attachments != nil && !*s.attachments {
					off = append(off, s)
				}
			}
			continue
		}
		if s.lookaside != "" && len(s.name) > bestURL {
			bestURL, lookaside, found = len(s.name), s.lookaside, s.at
		}
		if s.attachments != nil && len(s.name) > bestOn {
			bestOn, attachments = len(s.name), *s.attachments
		}
	}
	if lookaside != "" {
		lookaside = c.lookaside(found, lookaside)
	}
	return lookaside, attachments, off
}

// denyUnread writes a policy that denies the images of sections that turn attachments off: their
// signatures of Sigstore were not read, so that no image had any.
func (c *converter) denyUnread(off []registryScope) {
	for _, s := range off {
		covered, ok := translateScope(s.name)
		if !ok || c.names["unread/"+s.name].node != nil {
			continue
		}
		c.names["unread/"+s.name] = s.at
		c.policies(rule{at: s.at, name: "unread-" + ruleName(s.name), scope: covered, demand: demand{
			denies: "registries.d does not let signatures of Sigstore be read for these images",
		}}, nil)
	}
}
