-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

{"critical":{"identity":{"docker-reference":"registry.example.com/acme/app:v1"},"image":{"docker-manifest-digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"type":"atomic container signature"},"optional":{"creator":"by hand","timestamp":1767261600}}
-----BEGIN PGP SIGNATURE-----

iIUEARYIAC0WIQQtaJ/MEhCOBhH6/KUBrnVPOFBU/wUCaVZFoA8ccWFAZXhhbXBs
ZS5jb20ACgkQAa51TzhQVP8RWwEAvZvGljuf+snYcWf0h8vfaexuJWXGBQjcJl6h
K3zK9oQBAMBbtqNNMROMNfssgEQAnulxhtxrzOkG57vvWV6E6B4K
=Y5RH
-----END PGP SIGNATURE-----
