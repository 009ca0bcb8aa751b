"""EC2 Image Builder: what an image is made of, how it is built, and what the scan of it finds.

`resources.py` keeps components, recipes, configurations and pipelines; `builds.py` moves images through their states and makes
the AMIs; `listings.py` tells what has been built; `scans.py` what Inspector found. moto has nothing of this service.
"""

from awsim.services.imagebuilder import builds, listings, resources, scans

__all__ = ["builds", "listings", "resources", "scans"]
