"""DescribeDBEngineVersions: what RDS offers, and what can be upgraded to what."""

from typing import Any

from awsim import engines
from awsim.engines import EngineVersion
from awsim.registry import AwsError, Context, operation
from awsim.services.rds.maintenance import check_page_size


@operation("rds", "DescribeDBEngineVersions")
def describe_db_engine_versions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    check_page_size(params)
    versions = [one for offered in engines.shipped().values() for one in offered if _meant(one, params)]
    if params.get("DefaultOnly"):
        newest = {one.engine: engines.shipped()[one.engine][-1] for one in versions}
        versions = list(newest.values())
    for given in params.get("Filters") or []:
        if given["Name"] not in ("engine", "status", "parameter-group-family"):
            raise AwsError("InvalidParameterValue", f"Unrecognized filter name: {given['Name']}")
        versions = [one for one in versions if _told(one, given["Name"]) in given["Values"]]
    page, marker = ctx.page([_row(one) for one in versions], params, default=100, tokens="Marker", size="MaxRecords")
    return {"DBEngineVersions": page, "Marker": marker}


def _meant(one: EngineVersion, params: dict[str, Any]) -> bool:
    asked = params.get("EngineVersion")
    return (
        params.get("Engine") in (None, "", one.engine)
        and (not asked or asked in (one.version, one.major))
        and params.get("DBParameterGroupFamily") in (None, "", one.family)
    )


def _told(one: EngineVersion, name: str) -> str:
    return {"engine": one.engine, "status": "available", "parameter-group-family": one.family}[name]


def _row(one: EngineVersion) -> dict[str, Any]:
    return {
        "Engine": one.engine,
        "EngineVersion": one.version,
        "DBParameterGroupFamily": one.family,
        "DBEngineDescription": one.description,
        "DBEngineVersionDescription": f"{one.description} {one.version}",
        "Status": "available",
        "ValidUpgradeTarget": [
            {
                "Engine": target.engine,
                "EngineVersion": target.version,
                "Description": f"{target.description} {target.version}",
                "AutoUpgrade": target.automatic and target.major == one.major,
                "IsMajorVersionUpgrade": target.major != one.major,
            }
            for target in engines.targets(one.engine, one.version)
        ],
    }
